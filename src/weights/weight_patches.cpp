#include "weights/weight_patches.h"

#include "core/error.h"
#include "core/torch.h"

namespace strobe::weights {

void WeightPatches::add(const std::string& name, PatchKind kind, WeightPatch patch) {
  patches_[name].emplace(kind, std::move(patch));
}

void WeightPatches::create(const std::string& name, std::vector<int64_t> shape) {
  created_.emplace(name, std::move(shape));
}

const std::vector<int64_t>* WeightPatches::created(const std::string& name) const {
  const auto found = created_.find(name);
  return found == created_.end() ? nullptr : &found->second;
}

at::Tensor WeightPatches::apply(const std::string& name, const at::Tensor& stored, at::ScalarType dtype,
                                at::Device device) const {
  const auto found = patches_.find(name);
  if (found == patches_.end()) return stored.to(at::TensorOptions().dtype(dtype).device(device));
  const at::Tensor original = stored.to(at::TensorOptions().dtype(at::kFloat).device(device));
  at::Tensor weight = original;
  for (const auto& [kind, patch] : found->second) {
    weight = patch(weight);
    STROBE_CHECK(weight.sizes() == original.sizes() && weight.scalar_type() == at::kFloat,
                 "{}: a patch changed shape or dtype", name);
  }
  if (weight.is_same(original)) return stored.to(at::TensorOptions().dtype(dtype).device(device));
  return weight.to(dtype).contiguous();
}

}  // namespace strobe::weights
