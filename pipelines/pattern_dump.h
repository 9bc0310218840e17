// What attention did, call by call, on disk: `generate --dump DIR`.
//
// Files    stepSSSS_layerLL_BRANCH.safetensors, one a step, layer and branch of self or joint attention, with `level`,
//          `query_offsets`, `key_offsets`, `q_order`, `k_order`, `out` and `lse` as `pattern run` writes them; where the
//          heads of a layer follow several rules, one file a rule, its first head and its method behind the branch. A dense
//          call is one block. The header names method, kernel, heads, density and times. Large: for analysis.
#pragma once

#include <filesystem>

#include "attention/engine.h"

namespace strobe::pipelines {

// Makes the folder. IoError where it cannot be written.
attention::AttentionObserver make_pattern_dump(const std::filesystem::path& folder);

}  // namespace strobe::pipelines
