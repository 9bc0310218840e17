// A LoRA file: its tensors grouped by the module they belong to, and the scale of each module.
//
// Names     Module names are the file's own, without the role suffix; what they mean is the model's business (lora.h).
// Scale     alpha / r of the module's `.alpha`; else of `lora_adapter_metadata` in the header; else of an
//           adapter_config.json beside the file; else 1. Rank is that of the matrices.
// Errors    WeightError naming file and key: other formats, two tensors of one role, metadata that is not readable.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config_node.h"
#include "weights/tensor_source.h"

namespace strobe::weights {

enum class LoraRole {
  kA,          // [r, in, ...]
  kB,          // [out, r, ...]
  kMid,        // [r, r, ...]: the middle of a convolution in CP form
  kAlpha,      // one value
  kBBias,      // [out]
  kDiff,       // shape of the weight
  kDiffBias,   // [out]
  kSetWeight,  // shape of the weight
  kMagnitude,  // [out], [out, 1] or [1, in]
  kHadaW1A,
  kHadaW1B,
  kHadaW2A,
  kHadaW2B,
  kHadaT1,
  kHadaT2,
  kLokrW1,
  kLokrW1A,
  kLokrW1B,
  kLokrW2,
  kLokrW2A,
  kLokrW2B,
  kLokrT2,
};

struct LoraKey {
  std::string_view module;
  LoraRole role;
};

// nullopt for a name that ends in no suffix we know.
std::optional<LoraKey> parse_lora_key(std::string_view key);

struct LoraModule {
  std::string name;
  std::map<LoraRole, std::string> keys;  // role -> name of the tensor in the file

  bool has(LoraRole role) const { return keys.contains(role); }
};

class LoraFile {
 public:
  // .safetensors; .pt, .pth, .bin and .ckpt through the archive reader.
  static std::shared_ptr<const LoraFile> open(const std::filesystem::path& path);
  LoraFile(std::shared_ptr<const TensorSource> source, std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<LoraModule>& modules() const { return modules_; }
  const std::vector<std::string>& unknown_keys() const { return unknown_keys_; }

  const std::vector<int64_t>& shape(const LoraModule& module, LoraRole role) const;
  at::Tensor read(const LoraModule& module, LoraRole role) const;
  // Reads all of the module; WeightError for NaN and infinity, which would reach every number of a clip.
  void check_finite(const LoraModule& module) const;

  // The module's scale for matrices of this rank. `names` are the module's names to look up in patterns: the file's
  // without prefix and the model's. `component` is transformer or transformer_2.
  double scale(const LoraModule& module, int64_t rank, const std::vector<std::string>& names,
               const std::string& component) const;

  [[noreturn]] void fail(const std::string& key, const std::string& message) const;

 private:
  void read_metadata();
  std::optional<double> metadata_scale(const ConfigNode& node, const std::string& prefix, int64_t rank,
                                       const std::vector<std::string>& names) const;

  std::shared_ptr<const TensorSource> source_;
  std::filesystem::path path_;
  std::vector<LoraModule> modules_;
  std::vector<std::string> unknown_keys_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  ConfigNode header_;   // lora_adapter_metadata, or null
  ConfigNode adapter_;  // adapter_config.json, or null
};

}  // namespace strobe::weights
