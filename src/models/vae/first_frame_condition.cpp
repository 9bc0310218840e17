#include "models/vae/first_frame_condition.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/torch.h"

namespace strobe::models {
namespace {

// Gives first, grey ..., last without ever holding the clip.
class GivenFramesSource {
 public:
  GivenFramesSource(GivenFrames given, int64_t num_frames) : given_(std::move(given)), num_frames_(num_frames) {}

  at::Tensor next(int64_t max_frames) {
    const int64_t count = std::min(max_frames, num_frames_ - place_);
    if (count <= 0) return {};
    const at::Tensor& image = given_.first;
    at::Tensor frames = at::zeros({3, count, image.size(1), image.size(2)}, image.options().dtype(at::kFloat));
    if (place_ == 0) frames.select(1, 0).copy_(given_.first);
    place_ += count;
    if (place_ == num_frames_ && given_.last.defined()) frames.select(1, count - 1).copy_(given_.last);
    return frames;
  }

 private:
  GivenFrames given_;
  int64_t num_frames_;
  int64_t place_ = 0;
};

}  // namespace

at::Tensor compute_first_frame_condition(const Vae& vae, const GivenFrames& given, int64_t num_frames,
                                         const VaeTiling& tiling) {
  const int64_t stride = vae.temporal_stride();
  STROBE_CHECK(given.first.defined() && given.first.dim() == 3 && given.first.size(0) == 3,
               "compute_first_frame_condition: expected a first frame [3, height, width]");
  STROBE_CHECK(!given.last.defined() || given.last.sizes() == given.first.sizes(),
               "compute_first_frame_condition: the last frame is [{}], the first [{}]",
               fmt::join(given.last.sizes(), ", "), fmt::join(given.first.sizes(), ", "));
  STROBE_CHECK(num_frames >= 1 && (num_frames - 1) % stride == 0,
               "compute_first_frame_condition: expected {} k + 1 frames, got {}", stride, num_frames);
  STROBE_CHECK(!given.last.defined() || num_frames > 1,
               "compute_first_frame_condition: one frame cannot be both first and last");
  const at::NoGradGuard no_grad;
  GivenFramesSource source(given, num_frames);
  const at::Tensor latents = vae.encode([&](int64_t max_frames) { return source.next(max_frames); }, tiling);
  at::Tensor mask = at::zeros({stride, latents.size(1), latents.size(2), latents.size(3)}, latents.options());
  mask.select(1, 0).fill_(1.0);
  if (given.last.defined()) mask.select(0, stride - 1).select(0, latents.size(1) - 1).fill_(1.0);
  return at::cat({mask, latents});
}

}  // namespace strobe::models
