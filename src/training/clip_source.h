// Batches of drawn clips: sample `index` of a stage is the same clip whoever asks, and when.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "training/recipe.h"
#include "training/sprites/scene.h"

namespace strobe::training {

struct ClipBatch {
  at::Tensor pixels;                  // [B, 3, F, H, W] float32 in [-1, 1], on the CPU
  std::vector<std::string> captions;  // one a clip; of leaves, empty
};

// Clips `first` .. `first + count - 1` of the stage with this seed. Single frames of scenes stand at a random moment,
// shorter clips than those of a scene show all of it.
ClipBatch draw_clips(const ClipKind& kind, uint64_t stage_seed, int64_t first, int64_t count,
                     sprites::Split split = sprites::Split::kTraining);

// Which kind the step takes.
const ClipKind& kind_at(const std::vector<ClipKind>& kinds, uint64_t stage_seed, int64_t step);

// Seeds of what a stage draws, unrelated for unlike stages and purposes.
uint64_t stage_seed(uint64_t seed, const std::string& stage);

}  // namespace strobe::training
