// SHA-256 by FFmpeg's libavutil: of frames, files and texts.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace strobe::video {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(const void* data, size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  // The digest in hexadecimal; the object starts anew.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256(std::string_view text);

}  // namespace strobe::video
