#include "weights/lora_file.h"

#include "core/error.h"
#include "core/torch.h"
#include "weights/json.h"
#include "weights/safetensors.h"
#include "weights/torch_archive.h"

namespace strobe::weights {
namespace {

struct Suffix {
  std::string_view text;
  LoraRole role;
};

constexpr Suffix kSuffixes[] = {
    {".lora_A.weight", LoraRole::kA},
    {".lora_down.weight", LoraRole::kA},
    {".lora.down.weight", LoraRole::kA},
    {"_lora.down.weight", LoraRole::kA},
    {".lora_A.default.weight", LoraRole::kA},
    {".lora_A", LoraRole::kA},
    {".lora_B.weight", LoraRole::kB},
    {".lora_up.weight", LoraRole::kB},
    {".lora.up.weight", LoraRole::kB},
    {"_lora.up.weight", LoraRole::kB},
    {".lora_B.default.weight", LoraRole::kB},
    {".lora_B", LoraRole::kB},
    {".lora_mid.weight", LoraRole::kMid},
    {".alpha", LoraRole::kAlpha},
    {".lora_B.bias", LoraRole::kBBias},
    {".lora_B.default.bias", LoraRole::kBBias},
    {".lora_up.bias", LoraRole::kBBias},
    {".diff", LoraRole::kDiff},
    {".diff_b", LoraRole::kDiffBias},
    {".set_weight", LoraRole::kSetWeight},
    {".dora_scale", LoraRole::kMagnitude},
    {".lora_magnitude_vector", LoraRole::kMagnitude},
    {".lora_magnitude_vector.weight", LoraRole::kMagnitude},
    {".lora_magnitude_vector.default", LoraRole::kMagnitude},
    {".lora_magnitude_vector.default.weight", LoraRole::kMagnitude},
    {".hada_w1_a", LoraRole::kHadaW1A},
    {".hada_w1_b", LoraRole::kHadaW1B},
    {".hada_w2_a", LoraRole::kHadaW2A},
    {".hada_w2_b", LoraRole::kHadaW2B},
    {".hada_t1", LoraRole::kHadaT1},
    {".hada_t2", LoraRole::kHadaT2},
    {".lokr_w1", LoraRole::kLokrW1},
    {".lokr_w1_a", LoraRole::kLokrW1A},
    {".lokr_w1_b", LoraRole::kLokrW1B},
    {".lokr_w2", LoraRole::kLokrW2},
    {".lokr_w2_a", LoraRole::kLokrW2A},
    {".lokr_w2_b", LoraRole::kLokrW2B},
    {".lokr_t2", LoraRole::kLokrT2},
};

// The entry whose key is the module's name or a dotted end of it.
std::optional<double> find_pattern(const ConfigNode* patterns, const std::vector<std::string>& names) {
  if (!patterns || !patterns->is_map()) return std::nullopt;
  for (const auto& [key, value] : patterns->as_map()) {
    for (const std::string& name : names) {
      if (name == key || name.ends_with("." + key)) return value.as_number();
    }
  }
  return std::nullopt;
}

std::shared_ptr<const TensorSource> open_source(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".safetensors") return open_safetensors(path);
  if (extension == ".pt" || extension == ".pth" || extension == ".bin" || extension == ".ckpt") {
    return open_torch_archive(path);
  }
  throw WeightError(fmt::format("{}: a LoRA file is .safetensors, .pt, .pth, .bin or .ckpt", path.string()));
}

}  // namespace

std::optional<LoraKey> parse_lora_key(std::string_view key) {
  const Suffix* best = nullptr;
  for (const Suffix& suffix : kSuffixes) {
    const bool fits = key.size() > suffix.text.size() && key.ends_with(suffix.text);
    if (fits && (!best || suffix.text.size() > best->text.size())) best = &suffix;
  }
  if (!best) return std::nullopt;
  return LoraKey{key.substr(0, key.size() - best->text.size()), best->role};
}

std::shared_ptr<const LoraFile> LoraFile::open(const std::filesystem::path& path) {
  return std::make_shared<LoraFile>(open_source(path), path);
}

LoraFile::LoraFile(std::shared_ptr<const TensorSource> source, std::filesystem::path path)
    : source_(std::move(source)), path_(std::move(path)) {
  std::map<std::string, LoraModule, std::less<>> modules;
  for (const TensorInfo& info : source_->tensors()) {
    const std::optional<LoraKey> key = parse_lora_key(info.name);
    if (!key) {
      unknown_keys_.push_back(info.name);
      continue;
    }
    LoraModule& module = modules[std::string(key->module)];
    module.name = key->module;
    const auto [entry, is_new] = module.keys.emplace(key->role, info.name);
    if (!is_new) fail(info.name, fmt::format("stands for the same thing as {}", entry->second));
    if (key->role != LoraRole::kAlpha && !at::isFloatingType(info.dtype)) {
      fail(info.name, fmt::format("expected F32, F16 or BF16, found {}", at::toString(info.dtype)));
    }
    shapes_[info.name] = info.shape;
  }
  for (auto& [name, module] : modules) modules_.push_back(std::move(module));
  read_metadata();
}

void LoraFile::fail(const std::string& key, const std::string& message) const {
  throw WeightError(fmt::format("{}: {}: {}", path_.string(), key, message));
}

const std::vector<int64_t>& LoraFile::shape(const LoraModule& module, LoraRole role) const {
  return shapes_.at(module.keys.at(role));
}

at::Tensor LoraFile::read(const LoraModule& module, LoraRole role) const { return source_->read(module.keys.at(role)); }

void LoraFile::check_finite(const LoraModule& module) const {
  for (const auto& [role, key] : module.keys) {
    if (!at::isfinite(source_->read(key)).all().item<bool>()) fail(key, "holds NaN or infinity");
  }
}

void LoraFile::read_metadata() {
  try {
    const auto& metadata = source_->metadata();
    if (const auto found = metadata.find("lora_adapter_metadata"); found != metadata.end()) {
      header_ = parse_json(found->second, path_.string() + ": lora_adapter_metadata");
      if (!header_.is_map()) header_.fail("expected a map, got " + header_.describe());
    }
    const std::filesystem::path beside = path_.parent_path() / "adapter_config.json";
    std::error_code error;
    if (!path_.empty() && std::filesystem::exists(beside, error)) {
      adapter_ = load_json(beside);
      if (!adapter_.is_map()) adapter_.fail("expected a map, got " + adapter_.describe());
    }
  } catch (const ConfigError& problem) {
    throw WeightError(problem.what());
  }
}

std::optional<double> LoraFile::metadata_scale(const ConfigNode& node, const std::string& prefix, int64_t rank,
                                               const std::vector<std::string>& names) const {
  if (!node.is_map() || !node.find(prefix + "lora_alpha")) return std::nullopt;
  try {
    const double said_rank = find_pattern(node.find(prefix + "rank_pattern"), names)
                                 .value_or(node.get_number(prefix + "r", static_cast<double>(rank)));
    if (said_rank != static_cast<double>(rank)) {
      fail(names.front(), fmt::format("the matrices have rank {}, {} says {}", rank, node.origin(), said_rank));
    }
    const double alpha =
        find_pattern(node.find(prefix + "alpha_pattern"), names).value_or(node.at(prefix + "lora_alpha").as_number());
    const bool is_rslora = node.get_bool(prefix + "use_rslora", false);
    return alpha / (is_rslora ? std::sqrt(said_rank) : said_rank);
  } catch (const ConfigError& problem) {
    throw WeightError(problem.what());
  }
}

double LoraFile::scale(const LoraModule& module, int64_t rank, const std::vector<std::string>& names,
                       const std::string& component) const {
  double scale = 1;
  if (module.has(LoraRole::kAlpha)) {
    const at::Tensor alpha = read(module, LoraRole::kAlpha);
    const std::string& key = module.keys.at(LoraRole::kAlpha);
    if (alpha.numel() != 1) fail(key, fmt::format("expected one value, found {}", alpha.numel()));
    scale = alpha.to(at::kDouble).item<double>() / static_cast<double>(rank);
    if (!std::isfinite(scale)) fail(key, "is not a finite number");
  } else if (module.has(LoraRole::kA)) {
    std::optional<double> found = metadata_scale(header_, component + ".", rank, names);
    if (!found) found = metadata_scale(header_, "transformer.", rank, names);
    if (!found) found = metadata_scale(adapter_, "", rank, names);
    scale = found.value_or(1.0);
  }
  return scale;
}

}  // namespace strobe::weights
