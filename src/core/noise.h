// Start noise: drawn on the CPU whatever the device, so that a seed means the same video everywhere.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace strobe {

// Standard normal noise, float32, on the CPU. The same numbers as `torch.randn(shape,
// generator=Generator().manual_seed(seed))`.
at::Tensor draw_noise(uint64_t seed, const std::vector<int64_t>& shape);

// Noise in parts: for tensors too large to be drawn whole. The parts are those of draw_noise over all of them together as
// long as each but the last has a multiple of 16 elements, and the last at least 16.
class NoiseStream {
 public:
  explicit NoiseStream(uint64_t seed);
  at::Tensor next(int64_t count);  // [count] float32

 private:
  at::Generator generator_;
};

}  // namespace strobe
