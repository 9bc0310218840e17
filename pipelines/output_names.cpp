#include "pipelines/output_names.h"

#include <cctype>

#include "core/error.h"
#include "core/nearest.h"
#include "core/text_file.h"

namespace strobe::pipelines {
namespace {

constexpr size_t kSlugBytes = 40;
constexpr const char* kInsideFolder = "{index:04}_{slug}_{seed}";

const std::vector<std::string>& placeholders() {
  static const std::vector<std::string> names = {"index", "slug", "seed", "method", "density", "model", "ext", "frame"};
  return names;
}

// "04" of "{index:04}", as a width; 0 for none.
int pad_of(const std::string& pattern, const std::string& name, const std::string& format) {
  if (format.empty()) return 0;
  const bool is_number = name == "index" || name == "seed";
  if (is_number && format.size() == 2 && format[0] == '0' && format[1] >= '1' && format[1] <= '9') {
    return format[1] - '0';
  }
  throw ConfigError(fmt::format("'{}': {{{}:{}}}: expected {}", excerpt(pattern), name, format,
                                is_number ? "a width such as {index:04}" : "no format"));
}

std::string value_of(const std::string& pattern, const std::string& name, const std::string& format,
                     const NameFields& fields) {
  if (name == "frame") return fmt::format("{{frame{}{}}}", format.empty() ? "" : ":", format);
  const int width = pad_of(pattern, name, format);
  if (name == "index") return fmt::format("{:0{}}", fields.index, width);
  if (name == "seed") return fmt::format("{:0{}}", fields.seed, width);
  if (name == "slug") return fields.slug;
  if (name == "method") return slug(fields.method);
  if (name == "density") return fields.density ? fmt::format("{:.2f}", *fields.density) : "auto";
  if (name == "model") return slug(fields.model);
  if (name == "ext") return fields.ext;
  throw ConfigError(
      fmt::format("'{}': {}", excerpt(pattern), unknown_name_message("placeholder", excerpt(name), placeholders())));
}

bool is_folder(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

// A name without extension, or of a folder.
bool names_folder(const std::string& asked) {
  return !asked.ends_with('/') && (is_folder(asked) || std::filesystem::path(asked).extension().empty());
}

}  // namespace

std::string expand_name(const std::string& pattern, const NameFields& fields) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '{') {
      if (pattern[i] == '}') throw ConfigError(fmt::format("'{}': a '}}' without its '{{'", excerpt(pattern)));
      out += pattern[i];
      continue;
    }
    const size_t end = pattern.find('}', i);
    if (end == std::string::npos) throw ConfigError(fmt::format("'{}': a '{{' without its '}}'", excerpt(pattern)));
    const std::string inside = pattern.substr(i + 1, end - i - 1);
    const size_t colon = inside.find(':');
    out +=
        value_of(pattern, inside.substr(0, colon), colon == std::string::npos ? "" : inside.substr(colon + 1), fields);
    i = end;
  }
  return out;
}

std::filesystem::path output_name(const std::string& asked, const NameFields& fields, int64_t clips) {
  if (asked.empty()) return expand_name(std::string(clips > 1 ? kInsideFolder : "{slug}_{seed}") + ".{ext}", fields);
  if (names_folder(asked)) {
    return std::filesystem::path(expand_name(asked, fields)) /
           expand_name(std::string(kInsideFolder) + ".{ext}", fields);
  }
  const bool is_shared = clips > 1 && asked.ends_with('/') && asked.find('{') == std::string::npos;
  return expand_name(is_shared ? asked + kInsideFolder + "/" : asked, fields);
}

std::filesystem::path latents_name(const std::string& asked, const NameFields& fields, int64_t clips) {
  if (asked.empty()) return {};
  const bool is_plain = asked.find('{') == std::string::npos;
  if (asked.ends_with('/') || is_folder(asked) ||
      (is_plain && clips > 1 && std::filesystem::path(asked).extension().empty())) {
    return std::filesystem::path(expand_name(asked, fields)) /
           expand_name(std::string(kInsideFolder) + ".safetensors", fields);
  }
  return expand_name(asked, fields);
}

std::filesystem::path frames_name(const std::string& asked, const NameFields& fields, int64_t clips) {
  if (asked.empty()) return {};
  const bool is_shared = clips > 1 && asked.find('{') == std::string::npos;
  return is_shared ? std::filesystem::path(asked) / expand_name(kInsideFolder, fields)
                   : std::filesystem::path(expand_name(asked, fields));
}

std::filesystem::path clip_stem(const std::filesystem::path& output) {
  if (!output.has_filename()) return output.parent_path();
  const std::string name = output.filename().string();
  const size_t brace = name.find("{frame");
  if (brace == std::string::npos) return output;
  std::string front = name.substr(0, brace);
  while (!front.empty() && (front.back() == '_' || front.back() == '-' || front.back() == '.')) front.pop_back();
  if (!front.empty()) return output.parent_path() / front;
  return output.has_parent_path() ? output.parent_path() : std::filesystem::path("frames");
}

std::string slug(const std::string& prompt) {
  std::string out;
  for (const unsigned char c : prompt) {
    if (std::isalnum(c) && c < 0x80) {
      out += static_cast<char>(std::tolower(c));
    } else if (!out.empty() && out.back() != '-') {
      out += '-';
    }
    if (out.size() >= kSlugBytes) break;
  }
  while (!out.empty() && out.back() == '-') out.pop_back();
  return out.empty() ? "clip" : out;
}

}  // namespace strobe::pipelines
