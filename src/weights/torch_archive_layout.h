// What a PyTorch archive holds and where, checked against the archive's bytes, without LibTorch.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::weights {

// Every element lies inside the archive, and a tensor has no more elements than its storage.
struct ArchiveTensor {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Float;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  uint64_t begin = 0;  // of the first element, in bytes from the start of the archive
};

// Sorted bytewise by name. WeightError naming file and tensor.
std::vector<ArchiveTensor> parse_torch_archive(std::string_view archive, const std::string& file);

}  // namespace strobe::weights
