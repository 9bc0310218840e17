// The shapes of a checkpoint by the model's own names, for configurations that are read off the tensors.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "weights/tensor_source.h"
#include "weights/weight_store.h"

namespace strobe::weights {

class NamedShapes {
 public:
  // Names that `rename` drops are left out; an empty one keeps all. `what` ("a UMT5 encoder") is for messages.
  NamedShapes(const TensorSource& source, const Rename& rename, std::string what);

  bool contains(const std::string& name) const { return shapes_.contains(name); }
  bool contains_prefix(std::string_view prefix) const;
  // WeightError saying that the file is not `what` unless the tensor is there with this many axes, none of them empty.
  const std::vector<int64_t>& at(const std::string& name, size_t axes) const;
  // How many n begin some name as PREFIXn: "blocks." counts blocks.0, blocks.1 ...
  int64_t count_blocks(std::string_view prefix) const;

 private:
  std::map<std::string, std::vector<int64_t>, std::less<>> shapes_;
  std::string what_, file_;
};

}  // namespace strobe::weights
