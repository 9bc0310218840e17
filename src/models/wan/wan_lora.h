// LoRA files for Wan: other people's module names, and which of two experts a file is for.
//
// Names     diffusers and peft (`transformer.`, `transformer_2.`), original names with and without prefix, bare ones,
//           and kohya's flattened ones (`lora_unet_`), looked up in a table made of the model's own names.
// Experts   a file with `transformer_2.` keys is split; else high_noise or low_noise in the file's name decides (also
//           high-noise, highnoise); else it goes to both, which is said.
// Source    diffusers 0.37 (lora_conversion_utils.py), musubi-tuner, ComfyUI.
// Differs   `.diff` and `.diff_b` are applied wherever they fit, as ComfyUI does; diffusers drops most of them.
#pragma once

#include <vector>

#include "models/wan/wan_config.h"
#include "weights/lora.h"

namespace strobe::models {

// `configs` by stage. Errors as in weights/lora.h.
weights::LoraPlan plan_wan_loras(const std::vector<WanConfig>& configs, const std::vector<weights::Lora>& loras);

}  // namespace strobe::models
