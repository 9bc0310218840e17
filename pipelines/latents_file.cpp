#include "pipelines/latents_file.h"

#include "core/torch.h"
// After the precompiled header.
#include <fmt/ranges.h>

#include "core/error.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {

at::Tensor load_latents(const std::filesystem::path& path) {
  auto source = weights::open_safetensors(path);
  for (const weights::TensorInfo& info : source->tensors()) {
    if (info.name != "latents") continue;
    at::Tensor latents = source->read("latents").to(at::kFloat);
    if (latents.dim() == 4) latents = latents.unsqueeze(0);
    if (latents.dim() != 5 || latents.size(0) != 1 || latents.numel() == 0) {
      throw WeightError(
          fmt::format("{}: latents: expected [C, F, H, W], found [{}]", path.string(), fmt::join(info.shape, ", ")));
    }
    if (!at::isfinite(latents).all().item<bool>()) {
      throw WeightError(fmt::format("{}: latents: values are not finite", path.string()));
    }
    return latents.contiguous();
  }
  throw WeightError(fmt::format("{}: no tensor 'latents' in the file", path.string()));
}

at::Tensor load_latents(const std::filesystem::path& path, const std::vector<int64_t>& expected) {
  at::Tensor latents = load_latents(path);
  if (latents.sizes() != at::IntArrayRef(expected)) {
    throw WeightError(fmt::format("{}: latents: expected [{}] for the size asked, found [{}]", path.string(),
                                  fmt::join(expected, ", "), fmt::join(latents.sizes(), ", ")));
  }
  return latents;
}

void save_latents(const std::filesystem::path& path, const at::Tensor& latents,
                  const std::map<std::string, std::string>& metadata) {
  weights::save_safetensors(path, {{"latents", latents.squeeze(0).to(at::kCPU, at::kFloat)}}, metadata);
}

}  // namespace strobe::pipelines
