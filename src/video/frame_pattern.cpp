#include "video/frame_pattern.h"

#include <regex>

#include "core/error.h"
#include "core/torch.h"

namespace strobe::video {

std::string FramePattern::name(int64_t frame) const { return fmt::format("{}{:0{}}{}", prefix, frame, digits, suffix); }

std::optional<int64_t> FramePattern::frame_of(const std::string& text) const {
  constexpr size_t kLongest = 18;
  if (text.size() <= prefix.size() + suffix.size() || !text.starts_with(prefix) || !text.ends_with(suffix)) return {};
  const std::string number = text.substr(prefix.size(), text.size() - prefix.size() - suffix.size());
  const bool is_number = std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!is_number || number.size() > kLongest) return {};
  return std::stoll(number);
}

std::optional<FramePattern> parse_frame_pattern(const std::string& name) {
  static const std::regex kPattern(R"(([^{}]*)\{frame(:0([1-9]))?\}([^{}]*))");
  std::smatch match;
  if (std::regex_match(name, match, kPattern)) {
    return FramePattern{match[1], match[4], match[3].matched ? std::stoi(match[3]) : 1};
  }
  if (name.find_first_of("{}") == std::string::npos) return {};
  throw ConfigError(fmt::format("file name '{}': expected one {{frame}} or {{frame:05}}", name));
}

}  // namespace strobe::video
