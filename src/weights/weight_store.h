// The weights of one model: what the model expects, matched with what its files hold.
//
// Contract  `bind` compares the whole list at once and throws one WeightError that names every missing, unexpected and
//           wrongly shaped tensor, and each whose elements are not floating-point (the first 12 of each kind, with
//           counts). After it, `load` cannot fail for want of a
//           tensor. Nothing is read before `load`: mapped files cost no memory until then.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "weights/tensor_source.h"
#include "weights/weight_patches.h"

namespace strobe::weights {

struct TensorSpec {
  std::string name;  // the model's own (diffusers, Hugging Face) name
  std::vector<int64_t> shape;

  int64_t numel() const;
};

// Turns a name in the file into the model's name. nullopt: a tensor that is known and not needed (RoPE tables ...).
using Rename = std::function<std::optional<std::string>(std::string_view)>;

class WeightStore {
 public:
  WeightStore() = default;

  // `what` names the model in messages ("transformer", "vae"). Two file names that rename to one are an error.
  static WeightStore bind(std::shared_ptr<const TensorSource> source, const std::vector<TensorSpec>& expected,
                          const std::string& what, const Rename& rename = {});

  // What `load` changes on the way (LoRA). Null: nothing.
  void set_patches(std::shared_ptr<const WeightPatches> patches) { patches_ = std::move(patches); }

  // The tensor widened or narrowed to `dtype`, contiguous. It aliases the file where dtype is as stored on the CPU and no
  // patch changes it; otherwise the file's pages are given back, so that a model that must be widened stands in memory
  // once.
  at::Tensor load(const std::string& name, at::ScalarType dtype, at::Device device = at::kCPU) const;

  // As stored, without patches.
  at::Tensor load_stored(const std::string& name) const;

  // TensorSource's hints for every tensor whose name begins with `prefix`.
  void prefetch(std::string_view prefix) const;
  void release(std::string_view prefix) const;

  // Also true for a tensor that the patches create.
  bool contains(const std::string& name) const;
  const std::vector<TensorSpec>& specs() const { return specs_; }
  // Dtypes found, most bytes first, for the record: "bf16 97 %, f32 3 %" is made of these.
  std::vector<std::pair<at::ScalarType, int64_t>> bytes_by_dtype() const;
  const TensorSource& source() const { return *source_; }

 private:
  std::shared_ptr<const TensorSource> source_;
  std::vector<TensorSpec> specs_;
  std::unordered_map<std::string, std::string> file_names_;  // model's name -> name in the file
  std::string what_;
  std::shared_ptr<const WeightPatches> patches_;
};

// Total number of elements.
int64_t count_parameters(const std::vector<TensorSpec>& specs);

}  // namespace strobe::weights
