// File names with a frame number: "frames/{frame:05}.png".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace strobe::video {

struct FramePattern {
  std::string prefix, suffix;
  int digits = 0;  // padded with zeros to at least this many

  std::string name(int64_t frame) const;
  // The number in `text`, if it is a name of this pattern.
  std::optional<int64_t> frame_of(const std::string& text) const;
};

// Nothing if `name` has no {frame}; ConfigError for other braces.
std::optional<FramePattern> parse_frame_pattern(const std::string& name);

}  // namespace strobe::video
