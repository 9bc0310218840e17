// LoRA files merged into a model's weights: the model says which module is which, the rest is the same for all models.
//
// Merge     W += weight * scale * B A, and the other forms of lora_delta.h; `.diff` and `.diff_b` without scale; a bias
//           that the layer lacks is created. float32, rounded once; deltas add, DoRA is last.
// Contract  Shapes are checked when a file is matched, before any weight is read; numbers are computed when a weight is
//           loaded. Every key of the file is used, or named in a warning.
// Errors    WeightError naming file and key: shapes that do not fit (with both), no module at all, see lora_file.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "weights/lora_file.h"
#include "weights/weight_patches.h"
#include "weights/weight_store.h"

namespace strobe::weights {

// A file and how strongly it counts; 0 changes nothing, below 0 is the opposite.
struct Lora {
  std::filesystem::path path;
  double weight = 1;
};

// What became of one file in one transformer.
struct LoraUse {
  std::filesystem::path path;
  double weight = 1;
  int stage = 0;
  int64_t modules = 0;
  int64_t min_rank = 0, max_rank = 0;    // of the low-rank modules; 0 where there are none
  double min_scale = 0, max_scale = 0;   // alpha / rank of the same
  std::vector<std::string> unmatched{};  // keys of the file that change nothing here
};

// Where a module of the file belongs.
struct LoraTarget {
  enum class Kind {
    kModule,       // `module` of this transformer
    kElsewhere,    // another transformer's: not this one's business
    kAbsent,       // a part that this model does not have, as is usual: skipped with a notice
    kTextEncoder,  // skipped with a warning
    kUnknown       // reported
  };
  Kind kind = Kind::kUnknown;
  std::string module;                     // the model's name
  std::string component = "transformer";  // in the file's metadata
  bool may_have_other_inputs = false;     // skipped with a notice where the weight reads another number of channels
};
using LoraNaming = std::function<LoraTarget(std::string_view module)>;

// The patches of every transformer, and what they come from.
struct LoraPlan {
  std::vector<std::shared_ptr<const WeightPatches>> patches;  // by stage
  std::vector<LoraUse> uses;
};

struct LoraPrefix {
  std::string_view component;  // "transformer_2" or empty
  std::string_view rest;       // the name without prefixes
};
// Takes off the prefixes that training programs and repackagers put before a model's names.
LoraPrefix strip_lora_prefixes(std::string_view module);
bool is_text_encoder_lora(std::string_view module);

// One file against one or more transformers.
class LoraMatch {
 public:
  LoraMatch(std::shared_ptr<const LoraFile> file, double weight);

  void add(int stage, const std::vector<TensorSpec>& specs, const LoraNaming& naming, WeightPatches& patches);
  // Says what was used and what was not. WeightError if nothing fitted any transformer.
  std::vector<LoraUse> finish();

 private:
  struct Layer;  // a module with the tensors it changes
  void add_module(const LoraModule& module, const Layer& layer, WeightPatches& patches, LoraUse& use);
  void add_product(const LoraModule& module, const Layer& layer, double scale, WeightPatches& patches) const;
  bool add_whole(const LoraModule& module, const Layer& layer, LoraRole role, WeightPatches& patches);
  bool add_bias(const LoraModule& module, const Layer& layer, LoraRole role, double scale, WeightPatches& patches,
                LoraUse& use);
  double note_scale(const LoraModule& module, const Layer& layer, int64_t rank, LoraUse& use) const;
  bool is_other_input(const LoraModule& module, const Layer& layer, int64_t rows);
  void leave(const std::string& key, LoraUse& use);
  [[noreturn]] void refuse(const std::string& key, const std::vector<int64_t>& change, const std::string& name,
                           const std::vector<int64_t>& weight) const;

  std::shared_ptr<const LoraFile> file_;
  double weight_;
  std::vector<LoraUse> uses_;
  std::set<std::string> unmatched_, text_encoder_, absent_;
};

}  // namespace strobe::weights
