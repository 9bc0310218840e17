// An autoencoder over batches of whole clips, through which gradients flow: what training asks of a VAE.
#pragma once

#include <ATen/core/Tensor.h>

namespace strobe::models {

// [B, z, F', H', W'] in the model's dtype, not normalised by latents_mean and latents_std.
struct VaePosterior {
  at::Tensor mean, log_variance;
};

class ClipCodec {
 public:
  virtual ~ClipCodec() = default;
  virtual VaePosterior encode(const at::Tensor& clips) const = 0;  // [B, 3, F, H, W] in [-1, 1]
  // Latents as `encode` gives them to pixels [B, 3, F, H, W] in the model's dtype, not clamped.
  virtual at::Tensor decode(const at::Tensor& latents) const = 0;
};

}  // namespace strobe::models
