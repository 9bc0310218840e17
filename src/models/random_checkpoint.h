// Complete checkpoints with random or zero weights, laid out and sharded as published ones.
//
// Contract  The folder appears under its name only when all of it is there: it is made beside it and renamed. The same
//           files and options give the same bytes. Tensors are drawn and written a part at a time: memory does not grow
//           with the model. Zeros are holes where the file system has them.
// Layout    `<part>/<stem>.safetensors`, or shards of at most kShardBytes with `<stem>.safetensors.index.json`.
// Errors    ConfigError for a target that exists and is not an empty folder; IoError with the bytes needed and free
//           when the disk is too small, and for what the system refuses; InterruptedError. They leave nothing behind.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "weights/weight_store.h"

namespace strobe::models {

inline constexpr uint64_t kShardBytes = 5'000'000'000;

struct CheckpointWeights {
  std::string folder;  // "transformer"
  std::string stem;    // "diffusion_pytorch_model"
  std::vector<weights::TensorSpec> tensors;
  at::ScalarType dtype = at::kFloat;
};

struct CheckpointFiles {
  std::vector<std::pair<std::string, std::string>> texts;  // path below the folder, content
  std::vector<CheckpointWeights> weights;
  std::function<void(const std::filesystem::path& folder)> write_tokenizer;  // into folder "tokenizer"
};

struct RandomCheckpointOptions {
  uint64_t seed = 0;
  bool is_zero = false;
  std::optional<at::ScalarType> dtype;  // of all weights; none: as published
  std::function<bool()> is_interrupted;
  std::function<void(uint64_t written, uint64_t total)> on_bytes;
};

// Size of the weights files, headers left out.
uint64_t checkpoint_bytes(const CheckpointFiles& files, std::optional<at::ScalarType> dtype);

// Its configuration files below the folder.
void write_texts(const CheckpointFiles& files, const std::filesystem::path& folder);

void write_random_checkpoint(const std::filesystem::path& folder, const CheckpointFiles& files,
                             const RandomCheckpointOptions& options);

}  // namespace strobe::models
