// Configuration, parameter list and tensor names of the Wan video autoencoders.
//
// Contract  `from_json` reads `vae/config.json`; absent keys take the values of the Wan 2.1 file, which lacks most of
//           them. `wan_vae_parameters` lists every tensor under its diffusers name; `wan_vae_rename` maps the names of
//           the original `.pth` files to them.
// Units     widths in channels, strides in pixels and pixel frames per latent.
// Errors    ConfigError naming the key for values from which no model can be built.
// Source    https://github.com/Wan-Video/Wan2.1 and Wan2.2 (wan/modules/vae*.py); diffusers AutoencoderKLWan.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config_node.h"
#include "weights/weight_store.h"

namespace strobe::models {

struct WanVaeConfig {
  int64_t base_width = 96;
  int64_t decoder_base_width = 96;
  int64_t latent_channels = 16;
  std::vector<int64_t> width_factors = {1, 2, 4, 4};      // per level, finest first
  int64_t num_res_blocks = 2;                             // per encoder level; a decoder level has one more
  std::vector<bool> halves_frames = {false, true, true};  // per downsampling: does it halve the frame rate too
  bool is_residual = false;                               // Wan 2.2: shortcuts around whole levels
  int64_t in_channels = 3;                                // after patching
  int64_t out_channels = 3;                               // before unpatching
  int64_t patch_size = 1;
  std::vector<double> latents_mean;  // [latent_channels]
  std::vector<double> latents_std;   // [latent_channels]

  static WanVaeConfig from_json(const ConfigNode& json);

  // The file's content, which `from_json` and diffusers read back. What the published plain file leaves out stands only
  // where it has not the default value.
  ConfigNode to_json() const;

  // From the shapes of a checkpoint without a config file, as in the original Wan folders; statistics of the latents by
  // their number of channels (16: Wan 2.1, 48: Wan 2.2). WeightError if the tensors are not those of such a model.
  static WanVaeConfig from_tensors(const weights::TensorSource& source);

  // The published files: 2.1 (and 2.2 A14B), 2.2 TI2V-5B.
  static WanVaeConfig wan21();
  static WanVaeConfig wan22();

  // Throws ConfigError if no model can be built from the values.
  void validate() const;

  int64_t num_levels() const { return static_cast<int64_t>(width_factors.size()); }
  int64_t temporal_stride() const;
  int64_t spatial_stride() const;
  // Channels that enter and leave encoder level `level` and decoder level `level` (both counted in running order).
  int64_t encoder_in(int64_t level) const;
  int64_t encoder_out(int64_t level) const;
  int64_t decoder_in(int64_t level) const;
  int64_t decoder_out(int64_t level) const;  // width of the level's blocks; its upsampler may halve it
  // Whether the resampling after a decoder level doubles the frame rate.
  bool doubles_frames(int64_t level) const { return halves_frames[halves_frames.size() - 1 - level]; }
};

// Every tensor of the model with its diffusers name.
std::vector<weights::TensorSpec> wan_vae_parameters(const WanVaeConfig& config);

// The mapping for `WeightStore::bind`: empty for a file with diffusers names, else from the original names.
weights::Rename wan_vae_rename(const WanVaeConfig& config, const weights::TensorSource& source);

}  // namespace strobe::models
