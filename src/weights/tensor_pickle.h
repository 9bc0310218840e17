// The pickle inside a PyTorch archive: a flat dict of names to tensors, protocol 2, read without running anything.
//
// Knows    the opcodes that torch.save writes for such a dict and three kinds of globals: collections.OrderedDict,
//          torch._utils._rebuild_tensor_v2 and the storage classes of dtypes.h. Everything else is a WeightError.
// Cost     memory linear in the pickle's size, whatever its contents: values refer to each other by index.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::weights {

// What the pickle says; checked against nothing but its own types.
struct PickledTensor {
  std::string_view name;  // views of the pickle's bytes
  std::string_view storage_key;
  c10::ScalarType dtype = c10::ScalarType::Float;
  int64_t storage_numel = 0;
  int64_t offset = 0;  // in elements
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// In the order of the dict. Names may stand twice.
std::vector<PickledTensor> read_tensor_pickle(std::string_view pickle, const std::string& file);

}  // namespace strobe::weights
