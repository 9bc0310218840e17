// Where tensors come from: a safetensors file, a set of shards, a PyTorch archive, or memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace strobe::weights {

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;
  at::ScalarType dtype = at::kFloat;
};

// Contract  Immutable after construction and safe to read from several threads. A tensor that `read` returned stays
//           valid after the source is gone; it may alias a read-only file mapping, so nobody writes to it.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // Every tensor, sorted bytewise by name; names are unique.
  virtual const std::vector<TensorInfo>& tensors() const = 0;

  // The tensor as stored: dtype and shape of its TensorInfo, contiguous, on the CPU. WeightError for an unknown name.
  virtual at::Tensor read(const std::string& name) const = 0;

  // Hints on memory, for those who read a large file piece by piece: the tensor will be read soon; its bytes will not be
  // needed for a while, and tensors that alias them are no longer in use (they would be read from the file again).
  virtual void prefetch(const std::string& /*name*/) const {}
  virtual void release(const std::string& /*name*/) const {}

  // The file that holds the tensor, for messages ("memory" for tensors that no file holds).
  virtual std::string file_of(const std::string& name) const = 0;

  // Free text pairs of the file header (safetensors `__metadata__`); empty where the format has none.
  virtual const std::map<std::string, std::string>& metadata() const = 0;
};

// A source over tensors in memory.
std::shared_ptr<const TensorSource> make_memory_source(std::map<std::string, at::Tensor> tensors,
                                                       std::map<std::string, std::string> metadata = {});

}  // namespace strobe::weights
