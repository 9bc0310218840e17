// Layers of layers.h in one pass over memory each way, for training on the CPU in float32.
//
// Contract  Forward as the plain layers but for rounding; autograd gets the gradients of every argument but the tables.
//           Sums over tokens are made in a fixed order: the same bits for any number of threads.
// Why       As single operators they take a third of the time of a step with short clips.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace strobe::models {

// Whether the functions below take these: float32, on the CPU, contiguous but for the modulation, one modulation a row of
// the batch ([B or 1, 1, C]).
bool takes_recorded_rows(const at::Tensor& x);
bool takes_recorded_modulation(const at::Tensor& x, const at::Tensor& modulation);

// As rms_norm_rope. x [B, N, C]; cosine, sine [N, C / heads / 2] or undefined.
at::Tensor recorded_rms_norm_rope(const at::Tensor& x, const at::Tensor& weight, double eps, int64_t heads,
                                  const at::Tensor& cosine, const at::Tensor& sine);
// As modulated_layer_norm in float32.
at::Tensor recorded_modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift,
                                         double eps);
// x + a * gate; x and a [B, N, C].
at::Tensor recorded_add_gated(const at::Tensor& x, const at::Tensor& a, const at::Tensor& gate);

}  // namespace strobe::models
