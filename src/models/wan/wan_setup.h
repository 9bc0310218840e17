// Everything about a Wan model but its weights: configurations of the parts, defaults of a clip, and the work of a run.
//
// Contract  A folder and an architecture that is known without weights are read through the same functions, so that they
//           cannot disagree.
// Errors    ConfigError for parts that do not belong together and for scheduler settings that would change the numbers.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/config_node.h"
#include "models/model_folder.h"
#include "models/text/umt5.h"
#include "models/vae/wan_vae_config.h"
#include "models/wan/wan_config.h"

namespace strobe::models {

struct WanSetup {
  ModelInfo info;
  std::vector<WanConfig> transformers;  // by stage
  WanVaeConfig vae;
  Umt5Config text_encoder;
};

// Whether model_index.json names a class for the part; [null, null] stands for one that is left out.
bool lists_wan_part(const ConfigNode& index, std::string_view part);

// What model_index.json says of the experts and timesteps, into `info`.
void read_wan_index(const ConfigNode& index, ModelInfo& info);

// Fills the rest of `info` from the configurations, the scheduler's (none: an original folder, or one that lists none) and model_index.json.
void complete_wan_setup(WanSetup& setup, const ConfigNode& index, const std::optional<ConfigNode>& scheduler);

// A folder's text files and the names and shapes of its weights, stored in `dtype`; how its tokenizer is written is left
// to the caller.
CheckpointFiles wan_files(const WanSetup& setup, at::ScalarType dtype, at::ScalarType text_dtype);
// model_index.json and scheduler_config.json.
ConfigNode wan_index_node(const ModelInfo& info);
ConfigNode wan_scheduler_node(const ModelInfo& info);

// Counted on the layers of wan.cpp, umt5.cpp and the VAE; a size that the model does not take is a ShapeError.
ModelWork compute_wan_work(const WanSetup& setup, const WorkQuery& query);

}  // namespace strobe::models
