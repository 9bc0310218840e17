// Writes frames as they come: an encoded file through FFmpeg's libraries, or PNG files.
//
// Contract  Memory does not depend on the clip's length. A file is written under a temporary name beside its place and
//           renamed by `close`; a writer that is destroyed without `close` removes what it wrote. PNG frames get their
//           names one by one.
// Disk      Containers with their tags in front (.mkv .webm .avi) are put together by `close` from encoded frames that lie
//           in a nameless file beside the target until then: twice the clip's size for a moment.
// Colour    BT.709, limited range, tagged; where container and codec have no tags (AVI with MPEG-4), the matrix that
//           readers assume for the size. FFV1 keeps RGB bit for bit.
// Errors    UnsupportedError for an encoder that this FFmpeg lacks (the message lists those present for the container)
//           or a pixel format that the encoder refuses (listing those it takes); ConfigError for an unknown extension,
//           an odd size with subsampled chroma, a crf where there is none, or lossless with what is not; IoError for
//           files, with the system's text; ShapeError for frames of another size and for `close` without a frame.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "video/frames.h"

namespace strobe::video {

struct VideoOptions {
  int64_t height = 0;
  int64_t width = 0;
  FrameRate fps;
  std::string codec;    // FFmpeg encoder name or a family (h264, ffv1, vp9); empty: the container's usual one
  int crf = -1;         // -1: the encoder's default here (18 for H.264, 30 for VP9)
  std::string pix_fmt;  // empty: the encoder's usual one (yuv420p; FFV1: bgr0, lossless RGB)
  bool is_lossless = false;
  int threads = 0;            // 0: FFmpeg's choice
  bool may_overwrite = true;  // false: a file that is there is a ConfigError, one that appears meanwhile an IoError
};

class VideoWriter {
 public:
  virtual ~VideoWriter() = default;
  virtual void write(const at::Tensor& frames) = 0;  // [n, height, width, 3] uint8
  // The container's tag `comment`: UTF-8 of at most 1 MiB without NUL bytes. Any time before close; the last one counts.
  // PNG frames have none and ignore it.
  virtual void set_comment(const std::string& text) = 0;
  virtual void close() = 0;  // flushes, fsyncs, renames; afterwards the file is complete
  virtual int64_t frames_written() const = 0;
  virtual std::string encoder() const = 0;  // what really ran: "libx264 yuv420p crf 18"
};

// By the path's extension: .mp4 .mkv .webm .avi are files; .png or a name ending in '/' is a folder or pattern of PNG
// frames with an optional {frame:05} (0-based; a .png path without it holds exactly one frame).
std::unique_ptr<VideoWriter> open_video_writer(const std::filesystem::path& path, const VideoOptions& options);

// The usual choice for a lossless request and the checks that need no file: throws what open_video_writer would throw, and
// refuses what is there already if it must stay.
void check_video_options(const std::filesystem::path& path, const VideoOptions& options);

// Encoder names that this FFmpeg can put into the container of the path's extension: video, without those that need
// their own hardware (which can be asked for by name).
std::vector<std::string> available_encoders(const std::filesystem::path& path);

// "5.1.6" and the like, for --version and doctor.
std::string ffmpeg_version();

}  // namespace strobe::video
