// What is minimised: of the autoencoder and of the transformer.
//
// Sources   sprites.md 6 and 8; flow matching with the shift of arXiv 2403.03206 (section 5.3.2 there).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/block_runner.h"
#include "models/trainable_model.h"

namespace strobe::training {

struct Loss {
  at::Tensor total;                                   // a scalar, recorded
  std::vector<std::pair<std::string, double>> terms;  // before they are weighed
};

// Standard normal noise for samples `first` ..: sample i is a function of (seed, first + i) alone. [count, shape...],
// float32, on the CPU.
at::Tensor sample_noise(uint64_t seed, int64_t first, int64_t count, const std::vector<int64_t>& shape);

// Noise levels s = shift u / (1 + (shift - 1) u), u uniform, float32 [count], keyed likewise.
at::Tensor sample_sigmas(uint64_t seed, int64_t first, int64_t count, double shift);

// 4 MSE + 0.3 L1 + 0.2 L1 of spatial differences + kl_weight * KL per latent element; pixels in [-1, 1].
Loss autoencoder_loss(const models::ClipCodec& codec, const at::Tensor& clips, const at::Tensor& noise,
                      double kl_weight);

struct VelocityBatch {
  at::Tensor latents;                                          // [B, z, F, H, W], normalised
  at::Tensor noise;                                            // alike
  at::Tensor sigmas;                                           // [B]
  std::shared_ptr<models::PreparedConditioning> conditioning;  // of B prompts
};
// Mean square of velocity - (noise - latents).
at::Tensor velocity_loss(const models::DiTModel& model, const VelocityBatch& batch,
                         attention::AttentionFunction& attention, models::BlockRunner& blocks);

}  // namespace strobe::training
