// A run's state on disk: enough to go on with the same bits after the process is gone.
//
// File      safetensors with `x` [1, C, F, H, W] and the sampler's `history.N`, float32, and what attention methods
//           remember as `attention/...`; metadata: request hash, step, first_step, steps, forwards, attention (counts). At step == steps `x` is the final latents, and decoding is left.
// Contract  Written beside its name and renamed; a file is whole or not there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "attention/pattern_cache.h"
#include "attention/stats.h"
#include "sampling/sampler.h"

namespace strobe::pipelines {

struct Checkpoint {
  std::string request_hash;
  sampling::SamplerState state;
  int steps = 0;
  int64_t forwards = 0;
  std::map<std::string, at::Tensor> attention_states;  // of AttentionEngine::states()
  std::vector<attention::AttentionRow> attention_rows;
  std::vector<attention::SiteRow> attention_sites;
  attention::CacheCounts pattern_cache;
};

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

// Nothing if there is none, or one of another request; WeightError for a file that is no checkpoint.
std::optional<Checkpoint> load_checkpoint(const std::filesystem::path& path, const std::string& request_hash);

// Bytes of a checkpoint of latents of this shape.
int64_t checkpoint_bytes(const std::vector<int64_t>& latent_shape);

}  // namespace strobe::pipelines
