// Changes to a model's tensors that are made as each is loaded, in float32, so that streamed layers get them too.
//
// Contract  Immutable once it is given to a WeightStore. A tensor without patches is never touched: it keeps aliasing
//           its file, and so does one whose patches change nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::weights {

// Patches of one tensor run in this order; within a kind in the order they were added.
enum class PatchKind { kReplace, kAdd, kRescale };

// Takes the tensor as float32 on its device and returns the changed one of the same shape, or the very same tensor for
// "no change". Must not write to its argument.
using WeightPatch = std::function<at::Tensor(const at::Tensor& weight)>;

class WeightPatches {
 public:
  void add(const std::string& name, PatchKind kind, WeightPatch patch);
  // Declares a tensor that the files do not hold: zeros of this shape before its patches (a bias of a layer without).
  void create(const std::string& name, std::vector<int64_t> shape);

  bool is_empty() const { return patches_.empty(); }
  bool contains(const std::string& name) const { return patches_.contains(name); }
  // Shape of a created tensor; null for any other.
  const std::vector<int64_t>* created(const std::string& name) const;

  // The patched tensor in `dtype` on `device`, rounded once.
  at::Tensor apply(const std::string& name, const at::Tensor& stored, at::ScalarType dtype, at::Device device) const;

 private:
  std::map<std::string, std::multimap<PatchKind, WeightPatch>> patches_;
  std::map<std::string, std::vector<int64_t>> created_;
};

}  // namespace strobe::weights
