#include "video/video_writer.h"

#include "core/error.h"
#include "core/torch.h"
#include "video/writers.h"

namespace strobe::video {
namespace {

void check_numbers(const VideoOptions& options) {
  constexpr int64_t kLargest = 32768;
  if (options.width < 1 || options.height < 1 || options.width > kLargest || options.height > kLargest) {
    throw ConfigError(fmt::format("size {}x{}: expected 1 to {} each way", options.width, options.height, kLargest));
  }
  constexpr int64_t kLargestRate = 1'000'000;
  if (options.fps.numerator < 1 || options.fps.denominator < 1 || options.fps.numerator > kLargestRate ||
      options.fps.denominator > kLargestRate) {
    throw ConfigError(fmt::format("fps {}/{}: expected numbers from 1 to {}", options.fps.numerator,
                                  options.fps.denominator, kLargestRate));
  }
  if (options.threads < 0) throw ConfigError(fmt::format("threads: expected at least 0, got {}", options.threads));
}

void check_without_target(const std::filesystem::path& path, const VideoOptions& options) {
  check_numbers(options);
  is_png_output(path) ? check_png_writer(path, options) : check_file_writer(path, options);
}

}  // namespace

at::Tensor checked_frames(const at::Tensor& frames, const VideoOptions& options) {
  STROBE_CHECK(frames.defined() && frames.dim() == 4 && frames.scalar_type() == at::kByte && frames.size(3) == 3 &&
                   frames.size(1) == options.height && frames.size(2) == options.width,
               "VideoWriter: frames: expected [n, {}, {}, 3] uint8", options.height, options.width);
  return frames.to(at::kCPU).contiguous();
}

void check_video_options(const std::filesystem::path& path, const VideoOptions& options) {
  check_without_target(path, options);
  if (options.may_overwrite) return;
  std::error_code ignored;
  const bool is_there = std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
  const std::filesystem::path existing = is_png_output(path) ? existing_png(path) : is_there ? path : "";
  if (!existing.empty()) {
    throw ConfigError(fmt::format("{}: exists already; give --overwrite to replace it", existing.string()));
  }
}

std::unique_ptr<VideoWriter> open_video_writer(const std::filesystem::path& path, const VideoOptions& options) {
  check_without_target(path, options);
  return is_png_output(path) ? make_png_writer(path, options) : make_file_writer(path, options);
}

}  // namespace strobe::video
