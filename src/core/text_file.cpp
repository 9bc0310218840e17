#include "core/text_file.h"

#include <algorithm>
#include <fstream>

#include "core/error.h"

namespace strobe {
namespace {

bool is_continuation(std::string_view text, size_t i) {
  return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0U) == 0x80U;
}

// Bytes of the character that starts at `i`; 0 if none does.
size_t utf8_length(std::string_view text, size_t i) {
  const auto lead = static_cast<unsigned char>(text[i]);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  for (size_t k = 1; k < length; ++k) {
    if (!is_continuation(text, i + k)) return 0;
  }
  const auto second = static_cast<unsigned char>(text[i + 1]);
  if (lead == 0xE0 && second < 0xA0) return 0;   // overlong
  if (lead == 0xED && second >= 0xA0) return 0;  // surrogate
  if (lead == 0xF0 && second < 0x90) return 0;   // overlong
  if (lead == 0xF4 && second >= 0x90) return 0;  // beyond Unicode
  return length;
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte < 0x20 && c != '\t' && c != '\n' && c != '\r') || byte == 0x7F;
}

}  // namespace

std::string read_whole_file(const std::filesystem::path& path, uintmax_t max_bytes) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    throw IoError(fmt::format("{}: is a folder, expected a file", path.string()));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const bool exists = std::filesystem::exists(path, error);
    throw IoError(fmt::format("{}: {}", path.string(), exists ? "cannot be read" : "no such file"));
  }
  // Read rather than asked for: a pipe has no size.
  std::string text;
  char buffer[1 << 16];
  while (file.read(buffer, sizeof(buffer)) || file.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(file.gcount()));
    if (text.size() > max_bytes) {
      throw IoError(fmt::format("{}: more than {} bytes, the limit for such files", path.string(), max_bytes));
    }
  }
  if (file.bad()) throw IoError(fmt::format("{}: cannot be read", path.string()));
  return text;
}

std::string read_text_file(const std::filesystem::path& path, uintmax_t max_bytes) {
  try {
    return read_whole_file(path, max_bytes);
  } catch (const IoError& error) {
    throw ConfigError(error.what());
  }
}

std::string_view without_byte_order_mark(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

size_t find_control_character(std::string_view text) {
  const auto found = std::find_if(text.begin(), text.end(), is_control);
  return found == text.end() ? std::string_view::npos : static_cast<size_t>(found - text.begin());
}

std::string place_in_text(std::string_view text, const std::string& file, size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  const size_t column = newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
  return fmt::format("{}:{}:{}", file, line, column);
}

void check_text(std::string_view text, const std::string& file) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    throw ConfigError(fmt::format("{}:1:1: the file is UTF-16; save it as UTF-8", file));
  }
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    throw ConfigError(fmt::format("{}: byte 0x{:02x} is not UTF-8", place_in_text(text, file, bad),
                                  static_cast<unsigned char>(text[bad])));
  }
  if (const size_t bad = find_control_character(text); bad != std::string_view::npos) {
    throw ConfigError(fmt::format("{}: control character 0x{:02x}", place_in_text(text, file, bad),
                                  static_cast<unsigned char>(text[bad])));
  }
}

std::string excerpt(std::string_view text, size_t max_bytes) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    if (out.size() + std::max<size_t>(length, 1) > max_bytes) return out + "...";
    const bool is_plain = length > 0 && static_cast<unsigned char>(text[i]) >= 0x20 && text[i] != 0x7F;
    out += is_plain ? text.substr(i, length) : std::string_view("?");
    i += std::max<size_t>(length, 1);
  }
  return out;
}

}  // namespace strobe
