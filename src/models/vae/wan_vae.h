// The causal video autoencoders of Wan 2.1 and Wan 2.2, streamed over frame chunks.
//
// Contract  Decoding hands frames to the sink chunk by chunk and encoding pulls them so; peak memory does not depend on
//           the length of the clip, apart from the encoder's result. With tiling, which is used only when the clip is
//           larger than a tile, each tile runs over the whole clip before the next, and the clip is held as float32.
//           Const calls are safe from several threads.
// Shapes    decode [C, F, H, W] latents to [3, n, H * stride, W * stride] frames, the first n being 1; encode the
//           reverse.
// Units     tiles in pixels, of the whole picture when decoding and of the patched one when encoding, as diffusers
//           does.
// Errors    ShapeError for sizes that do not fit, ConfigError for tiles that are no multiples of the stride.
// Source    https://github.com/Wan-Video/Wan2.1; diffusers AutoencoderKLWan. Differs: later chunks may hold several
//           latent frames; upsampling is folded into its convolution (equal to 5e-6).
#pragma once

#include <memory>

#include "models/vae/vae.h"
#include "models/vae/wan_vae_config.h"
#include "models/vae/wan_vae_layers.h"
#include "weights/weight_store.h"

namespace strobe::models {

struct WanVaeOptions {
  // Latent frames per chunk after the first; 0 chooses by the size of the largest activation.
  int64_t chunk_latent_frames = 0;
  // Called with "dec.chunkK.STAGE" and "enc.chunkK.STAGE" as stages finish; for tests.
  VaeProbe probe;
};

// `store` holds `wan_vae_parameters(config)`.
std::unique_ptr<Vae> make_wan_vae(const WanVaeConfig& config, const weights::WeightStore& store,
                                  at::ScalarType dtype = at::kFloat, at::Device device = at::kCPU,
                                  const WanVaeOptions& options = {});

// Latent frames of a chunk, chosen by the size of the largest activation: `width` channels on `rows` x `cols`.
int64_t wan_vae_chunk_latents(const WanVaeConfig& config, int64_t rows, int64_t cols, int64_t width,
                              int64_t element_bytes);

}  // namespace strobe::models
