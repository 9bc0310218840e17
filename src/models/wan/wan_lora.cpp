#include "models/wan/wan_lora.h"

#include <cctype>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "core/torch.h"

namespace strobe::models {
namespace {

using weights::LoraTarget;
using Kind = weights::LoraTarget::Kind;

constexpr std::string_view kKohya = "lora_unet_";

// What only some Wan models have: the image branch.
bool is_image_branch(std::string_view name) {
  for (std::string_view part : {".add_k_proj", ".add_v_proj", ".norm_added_", "condition_embedder.image_embedder"}) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  return false;
}

std::string without_ending(const std::string& name) {
  for (std::string_view ending : {".weight", ".bias"}) {
    if (name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
  }
  return name;
}

// The tables end names with a dot.
std::string rename_module(std::string_view module) {
  std::string name = wan_rename_original(std::string(module) + ".");
  if (name.ends_with('.')) name.pop_back();
  return name;
}

// One model's module names and how files spell them.
class WanNames {
 public:
  WanNames(const WanConfig& config, const weights::LoraFile& file) {
    for (const weights::TensorSpec& spec : wan_parameters(config)) modules_.insert(without_ending(spec.name));
    for (const std::string& original : wan_original_modules(config.layers))
      add_kohya(original, rename_module(original));
    for (const std::string& name : modules_) add_kohya(name, name);
    for (const weights::LoraModule& module : file.modules()) {
      const std::string_view rest = weights::strip_lora_prefixes(module.name).rest;
      is_original_ = is_original_ || rename_module(rest) != rest;
    }
  }

  LoraTarget find(std::string_view rest) const {
    LoraTarget target;
    if (rest.starts_with(kKohya)) {
      const auto found = kohya_.find(rest);
      if (found != kohya_.end()) target.module = found->second;
    } else if (!is_original_) {
      target.module = rest;
    } else if (!rest.ends_with(".norm2")) {  // has no parameters there; ours of that name is the original's norm3
      target.module = rename_module(rest);
    }
    if (modules_.contains(target.module)) {
      target.kind = Kind::kModule;
    } else if (is_image_branch(target.module)) {
      target.kind = Kind::kAbsent;
    }
    target.may_have_other_inputs = target.module == "patch_embedding";
    return target;
  }

 private:
  void add_kohya(std::string name, const std::string& module) {
    std::replace(name.begin(), name.end(), '.', '_');
    kohya_.emplace(std::string(kKohya) + name, module);
  }

  std::set<std::string, std::less<>> modules_;
  std::map<std::string, std::string, std::less<>> kohya_;
  bool is_original_ = false;
};

// 0 or 1 if the file's name says which expert it is for, and not both.
std::optional<int> stage_of_name(const std::filesystem::path& path) {
  std::string name;
  for (char c : path.filename().string()) {
    if (c != '_' && c != '-' && c != ' ' && c != '.') {
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  const bool is_high = name.find("highnoise") != std::string::npos, is_low = name.find("lownoise") != std::string::npos;
  if (is_high == is_low) return std::nullopt;
  return is_high ? 0 : 1;
}

bool is_for_second(std::string_view module) {
  return weights::strip_lora_prefixes(module).component == "transformer_2";
}

// Which stages a file goes to, said where it is not obvious.
std::vector<int> choose_stages(const weights::LoraFile& file, bool is_split, size_t stages) {
  const std::string path = file.path().string();
  const std::optional<int> named = stage_of_name(file.path());
  if (stages == 1) {
    if (named && !is_split) {
      log_warning("LoRA {}: its name says that it is for one of two experts; this model has one transformer", path);
    }
    return {0};
  }
  if (is_split) return {0, 1};
  if (named) {
    log_info("LoRA {}: for the {}-noise expert, as its name says", path, *named == 0 ? "high" : "low");
    return {*named};
  }
  log_info("LoRA {}: neither its keys nor its name (high_noise, low_noise) say which expert it is for: applied to both",
           path);
  return {0, 1};
}

}  // namespace

weights::LoraPlan plan_wan_loras(const std::vector<WanConfig>& configs, const std::vector<weights::Lora>& loras) {
  std::vector<std::shared_ptr<weights::WeightPatches>> patches;
  for (size_t i = 0; i < configs.size(); ++i) patches.push_back(std::make_shared<weights::WeightPatches>());
  weights::LoraPlan plan{.patches = {patches.begin(), patches.end()}, .uses = {}};
  for (const weights::Lora& lora : loras) {
    const std::shared_ptr<const weights::LoraFile> file = weights::LoraFile::open(lora.path);
    const bool is_split = std::any_of(file->modules().begin(), file->modules().end(),
                                      [](const weights::LoraModule& module) { return is_for_second(module.name); });
    weights::LoraMatch match(file, lora.weight);
    for (int stage : choose_stages(*file, is_split, configs.size())) {
      const WanConfig& config = configs[static_cast<size_t>(stage)];
      const WanNames names(config, *file);
      const auto naming = [&](std::string_view module) -> LoraTarget {
        const auto [component, rest] = weights::strip_lora_prefixes(module);
        if (weights::is_text_encoder_lora(rest)) return {.kind = Kind::kTextEncoder};
        const bool is_second = component == "transformer_2";
        if (is_second && configs.size() == 1) return {.kind = Kind::kAbsent};
        if (is_split && is_second != (stage == 1)) return {.kind = Kind::kElsewhere};
        LoraTarget target = names.find(rest);
        target.component = is_second ? "transformer_2" : "transformer";
        return target;
      };
      match.add(stage, wan_parameters(config), naming, *patches[static_cast<size_t>(stage)]);
    }
    for (weights::LoraUse& use : match.finish()) plan.uses.push_back(std::move(use));
  }
  return plan;
}

}  // namespace strobe::models
