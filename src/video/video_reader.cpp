#include "video/video_reader.h"

#include <opencv2/imgproc.hpp>

#include "core/error.h"
#include "core/torch.h"
#include "video/readers.h"

namespace strobe::video {

std::unique_ptr<VideoReader> open_video_reader(const std::filesystem::path& path) {
  return is_image_input(path) ? make_image_reader(path) : make_file_reader(path);
}

std::string read_comment(const std::filesystem::path& video) {
  if (!is_image_input(video)) return read_file_comment(video);
  make_image_reader(video);
  return {};
}

at::Tensor read_all_frames(const std::filesystem::path& path) {
  constexpr int64_t kChunkFrames = 32;
  const auto reader = open_video_reader(path);
  std::vector<at::Tensor> chunks;
  for (at::Tensor chunk = reader->read(kChunkFrames); chunk.defined(); chunk = reader->read(kChunkFrames)) {
    chunks.push_back(chunk);
  }
  return at::cat(chunks);
}

at::Tensor resize_frames(const at::Tensor& frames, int64_t height, int64_t width) {
  STROBE_CHECK(frames.defined() && frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == at::kByte,
               "resize_frames: frames: expected [n, height, width, 3] uint8");
  STROBE_CHECK(height > 0 && width > 0 && frames.size(1) > 0 && frames.size(2) > 0, "resize_frames: size {}x{}", width,
               height);
  const at::Tensor source = frames.to(at::kCPU).contiguous();
  if (source.size(1) == height && source.size(2) == width) return source;
  const bool is_shrinking = height * width < source.size(1) * source.size(2);
  at::Tensor result = at::empty({source.size(0), height, width, 3}, at::kByte);
  for (int64_t i = 0; i < source.size(0); ++i) {
    const cv::Mat from(static_cast<int>(source.size(1)), static_cast<int>(source.size(2)), CV_8UC3,
                       source[i].data_ptr<uint8_t>());
    cv::Mat to(static_cast<int>(height), static_cast<int>(width), CV_8UC3, result[i].data_ptr<uint8_t>());
    cv::resize(from, to, to.size(), 0, 0, is_shrinking ? cv::INTER_AREA : cv::INTER_CUBIC);
  }
  return result;
}

}  // namespace strobe::video
