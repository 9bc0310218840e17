// Layers that transformers share. Tensors [.., N, C]; statistics in float32 whatever the dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "weights/weight_store.h"

namespace strobe::models {

// y = x W^T + b; W [out, in], b [out] or undefined.
struct Linear {
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor operator()(const at::Tensor& x) const;
};

// Loads NAME.weight and, where the model has it, NAME.bias.
Linear load_linear(const weights::WeightStore& store, const std::string& name, at::ScalarType dtype, at::Device device);

// Whether autograd records what is done with the tensor, which therefore must not be overwritten.
bool is_recorded(const at::Tensor& x);

// Layer norm over the last axis followed by y * (1 + scale) + shift, result in `dtype`. scale and shift broadcast over
// the tokens: [B, 1, C] or [B, N, C], float32.
at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, double eps,
                                at::ScalarType dtype);

// x + gate * a: float32 sums, result in `dtype`; in float32 it works in place on x where autograd does not record it.
at::Tensor add_gated(at::Tensor x, const at::Tensor& a, const at::Tensor& gate, at::ScalarType dtype);

// x / sqrt(mean(x^2) + eps) * weight over the last axis; [.., C], weight [C].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// RMS norm over all heads together, then rotation of adjacent pairs (z[2j], z[2j+1]) by the token's angles, in one
// pass. x [B, N, H * D]; cosine and sine [N, D / 2] float32, undefined: no rotation. May overwrite x where autograd does not record it. Returns [B, N, H
// * D].
at::Tensor rms_norm_rope(at::Tensor x, const at::Tensor& weight, double eps, int64_t heads, const at::Tensor& cosine,
                         const at::Tensor& sine);

// [cos(t f_0) .. cos(t f_{h-1}), sin(t f_0) ..], f_k = 10000^(-k/h), h = width / 2, float32. t of any shape ->
// [.., width].
at::Tensor timestep_sinusoid(const at::Tensor& timesteps, int64_t width);

}  // namespace strobe::models
