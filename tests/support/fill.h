// The reproducible weights and inputs of the golden numbers: every value follows from a tensor's rank and an element's
// index, so that a golden needs no file.
//
// hash(t, i) in uint32: x = (i+1) * 0x9E3779B1 + (t+1) * 0x85EBCA77; x ^= x>>15; x *= 0x2C1B3C6D; x ^= x>>12;
// x *= 0x297A2D39; x ^= x>>15; s = x / 2^32 * 2 - 1 in double.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "weights/weight_store.h"

namespace strobe::test {

// Values of tensor `t` in [-1, 1), before scaling, as float64 of the given shape.
at::Tensor fill_values(uint32_t t, const std::vector<int64_t>& shape);

// A model's tensors filled by rank (bytewise order of names) + `first_rank`: 1 + 0.1 s for norm weights and gammas,
// s * sqrt(3 * shape[0] / numel) for matrices and kernels, 0.05 s for the rest.
std::shared_ptr<const weights::TensorSource> fill_model(const std::vector<weights::TensorSpec>& specs,
                                                        uint32_t first_rank = 0);

// Input k: s(t = 1000 + k) * scale as float32; scale defaults to sqrt(3), unit variance.
at::Tensor fill_input(uint32_t k, const std::vector<int64_t>& shape, double scale = 1.7320508075688772);

}  // namespace strobe::test
