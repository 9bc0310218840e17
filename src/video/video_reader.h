// Reads any file that FFmpeg reads, or images, to RGB frames.
//
// Images    A folder (sorted so that frame2 precedes frame10), a name with {frame:05}, or one file; 16 fps.
// Colour    By the stream's matrix and range. Unspecified: BT.709 from 720 rows or 1280 columns on, else BT.601,
//           limited range, as players do. A rotation tag is ignored.
// Damage    Packets that cannot be decoded are left out with a warning.
// Errors    IoError for a file that is missing, has no video stream, changes its size, or breaks off with nothing
//           decoded; UnsupportedError for a codec that this FFmpeg cannot decode.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "video/frames.h"
#include "video/sha256.h"

namespace strobe::video {

struct VideoInfo {
  int64_t height = 0;
  int64_t width = 0;
  FrameRate fps;  // 16 if the file does not say
  std::string codec;
  std::map<std::string, std::string> metadata;  // the container's; keys in lower case, as containers differ in it
};

class VideoReader {
 public:
  virtual ~VideoReader() = default;
  virtual const VideoInfo& info() const = 0;
  // The next at most `max_frames` frames [n, height, width, 3] uint8; an undefined tensor at the end.
  virtual at::Tensor read(int64_t max_frames) = 0;
};

std::unique_ptr<VideoReader> open_video_reader(const std::filesystem::path& path);

// The container's tag `comment`, without decoding a frame of the video; empty where there is none, as for images. IoError
// for what is no video.
std::string read_comment(const std::filesystem::path& video);

// All frames at once [F, height, width, 3].
at::Tensor read_all_frames(const std::filesystem::path& path);

// Resizes frames (area when shrinking, bicubic when growing).
at::Tensor resize_frames(const at::Tensor& frames, int64_t height, int64_t width);

// SHA-256 over raw frames, fed chunk by chunk; hex.
class FrameHash {
 public:
  void update(const at::Tensor& frames);
  std::string finish();

 private:
  Sha256 hash_;
};

}  // namespace strobe::video
