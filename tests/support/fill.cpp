#include "tests/support/fill.h"

#include <algorithm>
#include <cmath>

#include "core/torch.h"

namespace strobe::test {

at::Tensor fill_values(uint32_t t, const std::vector<int64_t>& shape) {
  at::Tensor out = at::empty(shape, at::kDouble);
  double* values = out.data_ptr<double>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    uint32_t x = (static_cast<uint32_t>(i) + 1) * 0x9E3779B1U + (t + 1) * 0x85EBCA77U;
    x ^= x >> 15;
    x *= 0x2C1B3C6DU;
    x ^= x >> 12;
    x *= 0x297A2D39U;
    x ^= x >> 15;
    values[i] = static_cast<double>(x) / 4294967296.0 * 2.0 - 1.0;
  }
  return out;
}

std::shared_ptr<const weights::TensorSource> fill_model(const std::vector<weights::TensorSpec>& specs,
                                                        uint32_t first_rank) {
  std::vector<weights::TensorSpec> sorted = specs;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::map<std::string, at::Tensor> tensors;
  for (size_t rank = 0; rank < sorted.size(); ++rank) {
    const auto& [name, shape] = sorted[rank];
    at::Tensor s = fill_values(first_rank + static_cast<uint32_t>(rank), shape);
    const bool is_norm = name.ends_with(".gamma") ||
                         (name.find("norm") != std::string::npos && name.ends_with(".weight") && shape.size() == 1);
    if (is_norm) {
      s = s * 0.1 + 1.0;
    } else if (shape.size() >= 2) {
      s = s * std::sqrt(3.0 * static_cast<double>(shape[0]) / static_cast<double>(s.numel()));
    } else {
      s = s * 0.05;
    }
    tensors[name] = s.to(at::kFloat);
  }
  return weights::make_memory_source(std::move(tensors));
}

at::Tensor fill_input(uint32_t k, const std::vector<int64_t>& shape, double scale) {
  return (fill_values(1000 + k, shape) * scale).to(at::kFloat);
}

}  // namespace strobe::test
