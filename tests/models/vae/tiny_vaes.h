// Tiny autoencoders filled by the rule of tests/support/fill.h, and whole-clip forms of encode and decode.
#pragma once

#include <memory>
#include <vector>

#include "models/vae/wan_vae.h"
#include "tests/support/fill.h"

namespace strobe::models {

inline WanVaeConfig without_normalisation(WanVaeConfig config) {
  config.latents_mean.assign(config.latent_channels, 0.0);
  config.latents_std.assign(config.latent_channels, 1.0);
  return config;
}

inline WanVaeConfig tiny_21_normalised() {
  WanVaeConfig config = WanVaeConfig::wan21();
  config.base_width = config.decoder_base_width = 3;
  config.width_factors = {1, 1, 1, 1};
  config.num_res_blocks = 1;
  return config;
}

inline WanVaeConfig tiny_21() { return without_normalisation(tiny_21_normalised()); }

inline WanVaeConfig tiny_21b() {
  WanVaeConfig config = WanVaeConfig::wan21();
  config.base_width = config.decoder_base_width = 4;
  config.latent_channels = 4;
  return without_normalisation(config);
}

inline WanVaeConfig tiny_22() {
  WanVaeConfig config = WanVaeConfig::wan22();
  config.base_width = 4;
  config.decoder_base_width = 8;
  config.latent_channels = 8;
  return without_normalisation(config);
}

// Plain with patches, as the bundled model: 2 x 8 x 8.
inline WanVaeConfig patched_plain() {
  WanVaeConfig config;
  config.base_width = config.decoder_base_width = 32;
  config.width_factors = {1, 2};
  config.halves_frames = {true};
  config.num_res_blocks = 1;
  config.patch_size = 4;
  config.in_channels = config.out_channels = 48;
  return without_normalisation(config);
}

// Wide enough for the reordered kernels, with a tail that fills no vector register, one level fewer and a frame rate
// that is halved at the first level only.
inline WanVaeConfig odd_plain() {
  WanVaeConfig config = WanVaeConfig::wan21();
  config.base_width = 10;
  config.decoder_base_width = 18;
  config.latent_channels = 5;
  config.width_factors = {1, 3, 2};
  config.num_res_blocks = 1;
  config.halves_frames = {true, false};
  return without_normalisation(config);
}

inline std::unique_ptr<Vae> make_tiny(const WanVaeConfig& config, const WanVaeOptions& options = {}) {
  const std::vector<weights::TensorSpec> specs = wan_vae_parameters(config);
  const auto store = weights::WeightStore::bind(test::fill_model(specs), specs, "vae");
  return make_wan_vae(config, store, at::kFloat, at::kCPU, options);
}

// A source over a clip [3, frames, height, width].
inline FrameSource clip_source(const at::Tensor& clip) {
  return [clip, begin = int64_t{0}](int64_t max_frames) mutable -> at::Tensor {
    const int64_t count = std::min(max_frames, clip.size(1) - begin);
    if (count <= 0) return {};
    begin += count;
    return clip.narrow(1, begin - count, count);
  };
}

inline at::Tensor encode_clip(const Vae& vae, const at::Tensor& clip, const VaeTiling& tiling = {}) {
  return vae.encode(clip_source(clip), tiling);
}

inline at::Tensor decode_clip(const Vae& vae, const at::Tensor& latents, const VaeTiling& tiling = {}) {
  std::vector<at::Tensor> chunks;
  vae.decode(latents, tiling, [&](const at::Tensor& frames) { chunks.push_back(frames); });
  return at::cat(chunks, 1);
}

}  // namespace strobe::models
