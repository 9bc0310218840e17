#include "weights/lora.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/log.h"
#include "core/torch.h"
#include "weights/lora_delta.h"

namespace strobe::weights {
namespace {

constexpr size_t kNamesShown = 12;

constexpr std::string_view kPrefixes[] = {
    "base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "model.", "module.",
    "_orig_mod."};
constexpr std::string_view kSecondTransformer = "transformer_2.";
constexpr std::string_view kTextEncoderPrefixes[] = {"text_encoder", "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_"};

int64_t numel_of(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

std::vector<int64_t> without_ones(std::vector<int64_t> shape) {
  std::erase(shape, 1);
  return shape;
}

// A full change may lack axes of one (modulation) or be flattened behind the first axis (convolutions).
bool is_shape_of(const std::vector<int64_t>& change, const std::vector<int64_t>& weight) {
  if (without_ones(change) == without_ones(weight)) return true;
  return !change.empty() && !weight.empty() && change[0] == weight[0] && numel_of(change) == numel_of(weight);
}

at::Tensor read_as(const LoraFile& file, const LoraModule& module, LoraRole role, const at::Tensor& weight) {
  return file.read(module, role).to(weight.options()).reshape(weight.sizes());
}

// A change of zeros keeps the weight as it is, bit for bit: -0 + 0 would be +0.
at::Tensor add_change(const at::Tensor& weight, at::Tensor change, double factor) {
  change = change.mul(factor);
  return change.any().item<bool>() ? change.add_(weight) : weight;
}

std::string range_of(double low, double high) {
  return low == high ? fmt::format("{:.4g}", low) : fmt::format("{:.4g} to {:.4g}", low, high);
}

std::string first_names(const std::set<std::string>& names) {
  std::string out;
  size_t shown = 0;
  for (const std::string& name : names) {
    if (shown++ == kNamesShown) return out + fmt::format("\n  ... and {} more", names.size() - kNamesShown);
    out += "\n  " + name;
  }
  return out;
}

}  // namespace

LoraPrefix strip_lora_prefixes(std::string_view module) {
  LoraPrefix out{.component = {}, .rest = module};
  for (bool is_done = false; !is_done;) {
    is_done = true;
    if (out.rest.starts_with(kSecondTransformer)) {
      out = {.component = "transformer_2", .rest = out.rest.substr(kSecondTransformer.size())};
      is_done = false;
    }
    for (std::string_view prefix : kPrefixes) {
      if (!out.rest.starts_with(prefix)) continue;
      out.rest.remove_prefix(prefix.size());
      is_done = false;
    }
  }
  return out;
}

bool is_text_encoder_lora(std::string_view module) {
  return std::any_of(std::begin(kTextEncoderPrefixes), std::end(kTextEncoderPrefixes),
                     [&](std::string_view prefix) { return module.starts_with(prefix); });
}

struct LoraMatch::Layer {
  std::string name;
  std::string component;
  std::vector<std::string> names;  // under which patterns of the metadata may know it
  std::string weight_name, bias_name;
  const std::vector<int64_t>* weight = nullptr;  // shapes; null: there is none
  const std::vector<int64_t>* bias = nullptr;
  bool may_have_other_inputs = false;
};

LoraMatch::LoraMatch(std::shared_ptr<const LoraFile> file, double weight) : file_(std::move(file)), weight_(weight) {
  for (const std::string& key : file_->unknown_keys()) {
    (is_text_encoder_lora(key) ? text_encoder_ : unmatched_).insert(key);
  }
}

void LoraMatch::leave(const std::string& key, LoraUse& use) {
  unmatched_.insert(key);
  use.unmatched.push_back(key);
}

void LoraMatch::add(int stage, const std::vector<TensorSpec>& specs, const LoraNaming& naming, WeightPatches& patches) {
  LoraUse use{.path = file_->path(), .weight = weight_, .stage = stage, .unmatched = file_->unknown_keys()};
  std::unordered_map<std::string, const std::vector<int64_t>*> shapes;
  for (const TensorSpec& spec : specs) shapes.emplace(spec.name, &spec.shape);
  const auto find = [&](const std::string& name) -> const std::vector<int64_t>* {
    const auto found = shapes.find(name);
    return found == shapes.end() ? nullptr : found->second;
  };
  std::unordered_map<std::string, std::string> taken;  // the model's module -> the file's
  for (const LoraModule& module : file_->modules()) {
    const LoraTarget target = naming(module.name);
    std::set<std::string>* pile = target.kind == LoraTarget::Kind::kTextEncoder ? &text_encoder_
                                  : target.kind == LoraTarget::Kind::kAbsent    ? &absent_
                                                                                : nullptr;
    for (const auto& [role, key] : module.keys) {
      if (pile) pile->insert(key);
      if (target.kind == LoraTarget::Kind::kUnknown) leave(key, use);
    }
    if (target.kind != LoraTarget::Kind::kModule) continue;
    const auto [first, is_new] = taken.emplace(target.module, module.name);
    if (!is_new) file_->fail(module.name, fmt::format("and {} are both {}", first->second, target.module));

    Layer layer{.name = target.module,
                .component = target.component,
                .names = {std::string(strip_lora_prefixes(module.name).rest), target.module},
                .may_have_other_inputs = target.may_have_other_inputs};
    layer.weight_name = target.module + ".weight";
    layer.bias_name = target.module + ".bias";
    layer.weight = find(layer.weight_name);
    layer.bias = find(layer.bias_name);
    if (!layer.weight) {
      layer.weight_name = target.module;  // a parameter without a layer around it
      layer.weight = find(target.module);
      layer.bias_name.clear();
    }
    if (!layer.weight) {
      for (const auto& [role, key] : module.keys) leave(key, use);
      continue;
    }
    add_module(module, layer, patches, use);
  }
  uses_.push_back(std::move(use));
}

// True where the weight reads another number of channels and the model says that this is no error.
bool LoraMatch::is_other_input(const LoraModule& module, const Layer& layer, int64_t rows) {
  if (!layer.may_have_other_inputs || rows != layer.weight->front()) return false;
  for (const auto& [role, key] : module.keys) {
    if (role != LoraRole::kDiffBias && role != LoraRole::kBBias) absent_.insert(key);
  }
  return true;
}

void LoraMatch::refuse(const std::string& key, const std::vector<int64_t>& change, const std::string& name,
                       const std::vector<int64_t>& weight) const {
  file_->fail(key, fmt::format("[{}] does not fit {} [{}] (was it made for another model?)", fmt::join(change, ", "),
                               name, fmt::join(weight, ", ")));
}

double LoraMatch::note_scale(const LoraModule& module, const Layer& layer, int64_t rank, LoraUse& use) const {
  const double scale = file_->scale(module, rank, layer.names, layer.component);
  const bool is_first = use.max_rank == 0;
  use.min_rank = is_first ? rank : std::min(use.min_rank, rank);
  use.max_rank = is_first ? rank : std::max(use.max_rank, rank);
  use.min_scale = is_first ? scale : std::min(use.min_scale, scale);
  use.max_scale = is_first ? scale : std::max(use.max_scale, scale);
  return scale;
}

void LoraMatch::add_product(const LoraModule& module, const Layer& layer, double scale, WeightPatches& patches) const {
  const auto change = [file = file_, module, scale](const at::Tensor& w) {
    return compute_product(*file, module, w.device()).mul_(scale).reshape(w.sizes());
  };
  if (!module.has(LoraRole::kMagnitude)) {
    patches.add(layer.weight_name, PatchKind::kAdd,
                [change, factor = weight_](const at::Tensor& w) { return add_change(w, change(w), factor); });
    return;
  }
  const std::vector<int64_t>& magnitude = file_->shape(module, LoraRole::kMagnitude);
  if (!is_magnitude_of(magnitude, *layer.weight)) {
    refuse(module.keys.at(LoraRole::kMagnitude), magnitude, layer.weight_name, *layer.weight);
  }
  patches.add(
      layer.weight_name, PatchKind::kRescale, [change, file = file_, module, factor = weight_](const at::Tensor& w) {
        const at::Tensor whole = rescale_to_magnitude(change(w).add_(w), file->read(module, LoraRole::kMagnitude));
        return add_change(w, whole - w, factor);
      });
}

// `.diff` and `.set_weight`: no scale but the strength.
bool LoraMatch::add_whole(const LoraModule& module, const Layer& layer, LoraRole role, WeightPatches& patches) {
  if (!module.has(role)) return false;
  const std::vector<int64_t>& shape = file_->shape(module, role);
  if (!is_shape_of(shape, *layer.weight)) {
    if (!shape.empty() && is_other_input(module, layer, shape[0])) return false;
    refuse(module.keys.at(role), shape, layer.weight_name, *layer.weight);
  }
  const bool is_set = role == LoraRole::kSetWeight;
  patches.add(layer.weight_name, is_set ? PatchKind::kReplace : PatchKind::kAdd,
              [file = file_, module, role, is_set, factor = weight_](const at::Tensor& w) {
                at::Tensor given = read_as(*file, module, role, w);
                if (is_set && factor == 1) return given;
                return add_change(w, is_set ? given - w : given, factor);
              });
  return true;
}

bool LoraMatch::add_bias(const LoraModule& module, const Layer& layer, LoraRole role, double scale,
                         WeightPatches& patches, LoraUse& use) {
  if (!module.has(role)) return false;
  const std::string& key = module.keys.at(role);
  const bool is_layer = !layer.bias_name.empty() && layer.weight->size() >= 2;
  if (!layer.bias && !is_layer) {
    leave(key, use);
    return false;
  }
  const std::vector<int64_t> bias = layer.bias ? *layer.bias : std::vector<int64_t>{layer.weight->front()};
  if (!is_shape_of(file_->shape(module, role), bias)) refuse(key, file_->shape(module, role), layer.bias_name, bias);
  if (!layer.bias) patches.create(layer.bias_name, bias);
  patches.add(layer.bias_name, PatchKind::kAdd,
              [file = file_, module, role, factor = weight_ * scale](const at::Tensor& b) {
                return add_change(b, read_as(*file, module, role, b), factor);
              });
  return true;
}

void LoraMatch::add_module(const LoraModule& module, const Layer& layer, WeightPatches& patches, LoraUse& use) {
  double scale = 1;
  bool is_used = false;
  if (const std::optional<LoraShape> shape = product_shape(*file_, module)) {
    const int64_t rows = layer.weight->front(), cols = numel_of(*layer.weight) / rows;
    if (shape->rows == rows && shape->cols == cols) {
      if (shape->rank > 0) scale = note_scale(module, layer, shape->rank, use);
      add_product(module, layer, scale, patches);
      is_used = true;
    } else if (!is_other_input(module, layer, shape->rows)) {
      refuse(module.name, {shape->rows, shape->cols}, layer.weight_name, *layer.weight);
    }
  }
  for (LoraRole role : {LoraRole::kSetWeight, LoraRole::kDiff}) {
    is_used = add_whole(module, layer, role, patches) || is_used;
  }
  is_used = add_bias(module, layer, LoraRole::kBBias, scale, patches, use) || is_used;
  is_used = add_bias(module, layer, LoraRole::kDiffBias, 1.0, patches, use) || is_used;
  if (is_used) {
    file_->check_finite(module);
    ++use.modules;
  }
  if (module.keys.size() == 1 && module.has(LoraRole::kAlpha)) leave(module.keys.at(LoraRole::kAlpha), use);
}

std::vector<LoraUse> LoraMatch::finish() {
  const std::string path = file_->path().string();
  int64_t modules = 0;
  for (const LoraUse& use : uses_) modules += use.modules;
  if (modules == 0) {
    throw WeightError(fmt::format("{}: no module of this LoRA fits the model{}", path,
                                  unmatched_.empty() ? "" : "; its keys:" + first_names(unmatched_)));
  }
  std::erase_if(uses_, [](const LoraUse& use) { return use.modules == 0; });  // of a file for the other expert
  for (const LoraUse& use : uses_) {
    const std::string ranks =
        use.max_rank == 0 ? "no low-rank part"
                          : fmt::format("rank {}, scale {}",
                                        range_of(static_cast<double>(use.min_rank), static_cast<double>(use.max_rank)),
                                        range_of(use.min_scale, use.max_scale));
    log_info("LoRA {}: {} modules of transformer{}, {}, strength {}", path, use.modules, use.stage == 0 ? "" : "_2",
             ranks, use.weight);
  }
  if (!unmatched_.empty()) {
    log_warning("LoRA {}: {} keys match nothing in this model and change nothing:{}", path, unmatched_.size(),
                first_names(unmatched_));
  }
  if (!text_encoder_.empty()) {
    log_warning("LoRA {}: {} keys are for a text encoder, which takes no LoRA here: skipped", path,
                text_encoder_.size());
  }
  if (!absent_.empty()) {
    log_info("LoRA {}: {} keys are for parts that this model does not have: skipped, {} among them", path,
             absent_.size(), *absent_.begin());
  }
  return uses_;
}

}  // namespace strobe::weights
