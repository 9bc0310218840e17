// Wan's diffusion transformer, text-to-video and image-to-video (wan 2.1 and 2.2).
//
// Source   arXiv:2503.20314; parity with diffusers' WanTransformer3DModel in float32.
// Differs  The rows of text behind the prompt are equal, so they are one key with an additive logit ln(count); keys and
//          values of the text are computed once per prompt instead of once per step. Both are exact but for rounding.
// Input    latents [B, Cin, F, H, W] float32; timesteps [B] or [B, N]; output is the velocity, noise minus clean
//          sample.
// Memory   All blocks loaded, or (Residency::kStreamed) each read from the file when it runs and given back after it: then
//          a model larger than memory takes its steps at the speed of the disk.
// Dtype    float32, or bfloat16 with norms, modulation, time embedding and gated sums in float32 (wan.md 9).
#pragma once

#include <memory>

#include "models/dit_model.h"
#include "models/wan/wan_config.h"

namespace strobe::models {

// `store` must be bound to wan_parameters(config).
std::unique_ptr<DiTModel> make_wan_dit(const WanConfig& config, const weights::WeightStore& store, at::ScalarType dtype,
                                       at::Device device, Residency residency = Residency::kLoaded);

}  // namespace strobe::models
