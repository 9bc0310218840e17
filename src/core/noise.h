// Start noise: drawn on the CPU whatever the device, so that a seed means the same video everywhere.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace strobe {

// Standard normal noise, float32, on the CPU. The same numbers as `torch.randn(shape,
// generator=Generator().manual_seed(seed))`.
at::Tensor draw_noise(uint64_t seed, const std::vector<int64_t>& shape);

}  // namespace strobe
