// Wan models as training sees them.
//
// Initial   Transformer: LibTorch's draws for linear layers; attention output projections divided by sqrt(layers) with
//           biases 0, gates (rows 2 and 5 of scale_shift_table) + 0.25, proj_out 0 (sprites.md 8). Text encoder: as
//           transformers draws UMT5. Autoencoder: causal kernels begin as 2-D ones on their last tap, temporal
//           down- and upsampling as means and copies, log variances at -5 (sprites.md 6).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "models/trainable_model.h"
#include "models/wan/wan_setup.h"

namespace strobe::models {

// float32 tensors of a part, from files; empty for an architecture that has none.
using StoredWeights = std::function<NamedTensors(const std::string& part)>;

// ConfigError for two experts.
std::unique_ptr<TrainableModel> make_wan_trainable(WanSetup setup, StoredWeights stored);

}  // namespace strobe::models
