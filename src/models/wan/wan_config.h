// Configuration of Wan's diffusion transformer (wan 2.1 and 2.2), from a diffusers or an original `config.json`.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/config_node.h"
#include "weights/weight_store.h"

namespace strobe::models {

struct WanConfig {
  int64_t heads = 12;
  int64_t head_width = 128;
  int64_t layers = 30;
  int64_t ffn_width = 8960;
  int64_t in_channels = 16;
  int64_t out_channels = 16;
  int64_t text_width = 4096;
  int64_t frequency_width = 256;
  std::array<int64_t, 3> patch = {1, 2, 2};
  int64_t image_width = 0;      // 0: no image branch
  int64_t image_positions = 0;  // 514 for first-and-last-frame models: image tokens carry learned positions
  bool has_cross_norm = true;
  double eps = 1e-6;
  int64_t rope_positions = 1024;

  int64_t width() const { return heads * head_width; }

  // Diffusers keys (wan.md 1.2) or, when `_class_name` is WanModel or `dim` is present, the original ones (1.6).
  // ConfigError for missing keys and for values that no Wan model has.
  static WanConfig from_json(const ConfigNode& node);
  // From the shapes of a checkpoint without a config file (wan.md 2.2).
  static WanConfig from_tensors(const weights::TensorSource& source);
};

// Every tensor of the model under its diffusers name.
std::vector<weights::TensorSpec> wan_parameters(const WanConfig& config);

// The diffusers name of a tensor of the original releases; any other name comes back as it is.
std::string wan_rename_original(std::string_view name);
// Every layer and free parameter of the original releases, with the image branch, by name.
std::vector<std::string> wan_original_modules(int64_t layers);

// Accepts diffusers names, original names and either with a `model.diffusion_model.` or `diffusion_model.` prefix.
weights::Rename wan_rename(const weights::TensorSource& source);

}  // namespace strobe::models
