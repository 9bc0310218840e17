// Files from which a training run goes on.
//
// Contract  `checkpoint.safetensors` in the run's folder, and the one before it as `checkpoint.previous.safetensors`. A
//           new one is written beside them, fsynced, and only then takes the place of the last; a kill at any moment, or
//           a full disk, leaves at least one that is whole. The header holds the hash of the recipe
//           up to the stage, and a hash of all bytes.
// Errors    IoError when it cannot be written; ConfigError for one of another recipe (Recipe::stage_hashes); WeightError where neither can be
//           read. A damaged last one is passed over with a warning that says so.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "training/optimizer.h"

namespace strobe::training {

void save_checkpoint(const std::filesystem::path& folder, const NamedTensors& state, size_t stage,
                     const std::vector<std::string>& stage_hashes);

struct LoadedCheckpoint {
  std::filesystem::path path;
  NamedTensors state;
};

// Nothing where the folder has none.
std::optional<LoadedCheckpoint> load_checkpoint(const std::filesystem::path& folder,
                                                const std::vector<std::string>& stage_hashes);

// Order-dependent hash of names and bytes, 16 hexadecimal digits.
std::string content_hash(const NamedTensors& tensors);
std::string text_hash(const std::string& text);

}  // namespace strobe::training
