#include "video/frames.h"

#include "core/error.h"
#include "core/torch.h"

namespace strobe::video {

at::Tensor to_frames(const at::Tensor& video) {
  STROBE_CHECK(video.dim() == 4 && video.size(0) == 3, "to_frames: video: expected [3, n, height, width], got {} axes",
               video.dim());
  // at::round rounds half to even, as numpy and PIL do.
  return video.to(at::kFloat)
      .mul(0.5)
      .add_(0.5)
      .clamp_(0.0, 1.0)
      .mul_(255.0)
      .round_()
      .to(at::kByte)
      .permute({1, 2, 3, 0})
      .to(at::kCPU)
      .contiguous();
}

at::Tensor from_frames(const at::Tensor& frames) {
  STROBE_CHECK(frames.dim() == 4 && frames.size(3) == 3 && frames.scalar_type() == at::kByte,
               "from_frames: frames: expected [n, height, width, 3] uint8, got {} axes", frames.dim());
  return frames.permute({3, 0, 1, 2}).to(at::kFloat).mul_(2.0).div_(255.0).sub_(1.0).contiguous();
}

}  // namespace strobe::video
