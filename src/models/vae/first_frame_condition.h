// What image-to-video models see of the given frames: a mask and the normalised latents of a clip that is grey
// elsewhere.
//
// Input    frames [3, height, width] float32 in [-1, 1]; the last one is optional.
// Output   [S + C, F, H, W] float32: S = temporal stride mask channels (1 for given pixel frames; channel a of latent
//          frame n is pixel frame S n + a - (S - 1), the first frame filling its whole latent frame), then C latents.
// Errors   ShapeError unless num_frames = S k + 1 and the images fit the model and each other.
// Source   https://github.com/Wan-Video/Wan2.1 (image2video.py, first_last_frame2video.py).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/vae/vae.h"

namespace strobe::models {

struct GivenFrames {
  at::Tensor first;  // [3, height, width]
  at::Tensor last;   // [3, height, width] or undefined
};

at::Tensor compute_first_frame_condition(const Vae& vae, const GivenFrames& given, int64_t num_frames,
                                         const VaeTiling& tiling = {});

}  // namespace strobe::models
