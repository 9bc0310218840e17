// Video autoencoder: pixels to latents and back, in frame chunks, so that memory does not grow with the clip.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace strobe::models {

// Receives decoded frames in order, [3, n, height, width] float32 in [-1, 1], on the model's device.
using FrameSink = std::function<void(const at::Tensor& frames)>;
// Gives the next at most `max_frames` frames, [3, n, height, width] float32 in [-1, 1]; an undefined tensor at the end.
using FrameSource = std::function<at::Tensor(int64_t max_frames)>;

// Tiles for clips whose untiled decode does not fit (wan.md 6.6). In pixels.
struct VaeTiling {
  bool is_enabled = false;
  int64_t tile_px = 256;
  int64_t stride_px = 192;
};

class Vae {
 public:
  virtual ~Vae() = default;

  virtual int64_t latent_channels() const = 0;
  virtual int64_t temporal_stride() const = 0;  // pixel frames per latent frame; the first latent frame is one frame
  virtual int64_t spatial_stride() const = 0;   // pixels per latent row and column

  // Latents [C, F, H, W] float32, normalised, to temporal_stride * (F - 1) + 1 frames handed to `sink` chunk by chunk.
  virtual void decode(const at::Tensor& latents, const VaeTiling& tiling, const FrameSink& sink) const = 0;

  // Frames to normalised latents (the posterior's mean) [C, F, H, W] float32; frames beyond temporal_stride * k + 1 are
  // dropped. Height and width are multiples of spatial_stride(): ShapeError otherwise.
  virtual at::Tensor encode(const FrameSource& source, const VaeTiling& tiling) const = 0;
};

}  // namespace strobe::models
