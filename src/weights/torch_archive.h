// PyTorch archives (`.pth`): a zip of a pickled flat dict of tensors, as the original Wan repositories publish them.
//
// Only the globals that such a dict needs are accepted (torch._utils._rebuild_tensor_v2, the storage classes,
// collections.OrderedDict); any other is a WeightError naming it: nothing in a pickle is ever run.
#pragma once

#include <filesystem>
#include <memory>

#include "weights/tensor_source.h"

namespace strobe::weights {

// Maps the file; tensors alias the mapping. Stored (uncompressed) zip entries only, which is what PyTorch writes.
std::shared_ptr<const TensorSource> open_torch_archive(const std::filesystem::path& path);

}  // namespace strobe::weights
