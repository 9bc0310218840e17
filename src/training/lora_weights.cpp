#include "training/lora_weights.h"

#include "core/torch.h"
// After the precompiled header.
#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "core/noise.h"

namespace strobe::training {
namespace {

constexpr std::string_view kWeight = ".weight";

bool ends_with_module(std::string_view module, std::string_view target) {
  return module == target || (module.ends_with(target) && module[module.size() - target.size() - 1] == '.');
}

// "attn1.to_q" of "blocks.3.attn1.to_q".
std::string in_block(const std::string& module) {
  if (!module.starts_with("blocks.")) return module;
  return module.substr(module.find('.', module.find('.') + 1) + 1);
}

}  // namespace

LoraWeights::LoraWeights(const NamedTensors& transformer, const LoraRecipe& recipe, uint64_t seed, at::Device device)
    : scale_(recipe.alpha / static_cast<double>(recipe.rank)) {
  std::set<std::string> unused(recipe.targets.begin(), recipe.targets.end()), known;
  for (const auto& [name, weight] : transformer) {
    if (weight.dim() != 2 || !name.ends_with(kWeight)) continue;
    const std::string module = name.substr(0, name.size() - kWeight.size());
    known.insert(in_block(module));
    const auto target = std::find_if(recipe.targets.begin(), recipe.targets.end(),
                                     [&](const std::string& t) { return ends_with_module(module, t); });
    if (target == recipe.targets.end()) continue;
    unused.erase(*target);
    const int64_t out = weight.size(0), in = weight.size(1);
    // Uniform of variance 1 / (3 in), through a normal of the same variance: LibTorch's draw for linear layers.
    at::Tensor a = draw_noise(seed + weights_.size(), {recipe.rank, in}).div_(std::sqrt(3.0 * static_cast<double>(in)));
    weights_[module + ".lora_A"] = a.to(device);
    weights_[module + ".lora_B"] = at::zeros({out, recipe.rank}, a.options().device(device));
  }
  if (!unused.empty()) {
    const std::vector<std::string> names(known.begin(), known.end());
    throw ConfigError("lora: " + unknown_name_message("module of the transformer's blocks", *unused.begin(), names));
  }
}

std::shared_ptr<const weights::WeightPatches> LoraWeights::patches(const NamedTensors& weights) const {
  auto patches = std::make_shared<weights::WeightPatches>();
  for (const auto& [name, a] : weights) {
    constexpr std::string_view kA = ".lora_A";
    if (!name.ends_with(kA)) continue;
    const std::string module = name.substr(0, name.size() - kA.size());
    patches->add(module + ".weight", weights::PatchKind::kAdd,
                 [a = a, b = weights.at(module + ".lora_B"), scale = scale_](const at::Tensor& weight) {
                   return at::addmm(weight, b, a, 1, scale);
                 });
  }
  return patches;
}

NamedTensors LoraWeights::file_tensors(const NamedTensors& weights) const {
  NamedTensors tensors;
  for (const auto& [name, tensor] : weights) {
    const at::Tensor stored = tensor.detach().to(at::kCPU);
    tensors[fmt::format("transformer.{}.weight", name)] = name.ends_with(".lora_B") ? stored * scale_ : stored.clone();
  }
  return tensors;
}

}  // namespace strobe::training
