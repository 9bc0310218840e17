// The change that one module of a LoRA file makes to its weight: shapes first, numbers when the weight is loaded.
//
// Source   LoRA arXiv:2106.09685, LoHa arXiv:2108.06098, LoKr arXiv:2309.14859, DoRA arXiv:2402.09353.
// Numbers  float32 on the weight's device.
// Errors   WeightError naming file and key: a factor without its partner, empty or disagreeing ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "weights/lora_file.h"

namespace strobe::weights {

// A convolution counts as the matrix [out, in * kernel].
struct LoraShape {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t rank = 0;  // 0: no factor is split (LoKr), and alpha has nothing to be divided by
};

// Shape of the product of the module's factors; nullopt if it has none.
std::optional<LoraShape> product_shape(const LoraFile& file, const LoraModule& module);

// The product of the factors, unscaled, [rows, cols].
at::Tensor compute_product(const LoraFile& file, const LoraModule& module, at::Device device);

// DoRA: the rows of `changed` brought to the lengths in `magnitude` ([out], [out, 1 ...]), or its columns ([1, in ...]).
at::Tensor rescale_to_magnitude(const at::Tensor& changed, const at::Tensor& magnitude);
bool is_magnitude_of(const std::vector<int64_t>& magnitude, const std::vector<int64_t>& weight);

}  // namespace strobe::weights
