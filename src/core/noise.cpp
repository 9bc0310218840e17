#include "core/noise.h"

#include <ATen/CPUGeneratorImpl.h>

#include "core/torch.h"

namespace strobe {

at::Tensor draw_noise(uint64_t seed, const std::vector<int64_t>& shape) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions().dtype(at::kFloat));
}

NoiseStream::NoiseStream(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

at::Tensor NoiseStream::next(int64_t count) {
  return at::randn({count}, generator_, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace strobe
