#include "core/error.h"
#include "core/torch.h"
#include "video/video_reader.h"

namespace strobe::video {

void FrameHash::update(const at::Tensor& frames) {
  STROBE_CHECK(frames.defined() && frames.scalar_type() == at::kByte, "FrameHash: frames: expected uint8");
  const at::Tensor bytes = frames.to(at::kCPU).contiguous();
  hash_.update(bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
}

std::string FrameHash::finish() { return hash_.finish(); }

}  // namespace strobe::video
