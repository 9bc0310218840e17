#include "pipelines/checkpoint.h"

#include <charconv>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {
namespace {

constexpr int64_t kTensors = 4;  // the sample and the longest history

int64_t number(const std::map<std::string, std::string>& metadata, const char* key, const std::filesystem::path& path) {
  const auto found = metadata.find(key);
  int64_t value = -1;
  if (found != metadata.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
  if (value < 0) throw WeightError(fmt::format("{}: not a checkpoint: no '{}' in its header", path.string(), key));
  return value;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  std::map<std::string, at::Tensor> tensors = {{"x", checkpoint.state.x}};
  for (size_t i = 0; i < checkpoint.state.history.size(); ++i) {
    tensors.emplace(fmt::format("history.{}", i), checkpoint.state.history[i]);
  }
  weights::save_safetensors(path, tensors,
                            {{"request_hash", checkpoint.request_hash},
                             {"step", std::to_string(checkpoint.state.step)},
                             {"first_step", std::to_string(checkpoint.state.first_step)},
                             {"steps", std::to_string(checkpoint.steps)},
                             {"forwards", std::to_string(checkpoint.forwards)}});
}

std::optional<Checkpoint> load_checkpoint(const std::filesystem::path& path, const std::string& request_hash) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return {};
  const auto source = weights::open_safetensors(path);
  const auto& metadata = source->metadata();
  const auto hash = metadata.find("request_hash");
  if (hash == metadata.end() || hash->second != request_hash) return {};
  Checkpoint checkpoint{.request_hash = request_hash};
  checkpoint.state.step = static_cast<int>(number(metadata, "step", path));
  checkpoint.state.first_step = static_cast<int>(number(metadata, "first_step", path));
  checkpoint.steps = static_cast<int>(number(metadata, "steps", path));
  checkpoint.forwards = number(metadata, "forwards", path);
  // Copies: the file is replaced while the run goes on.
  checkpoint.state.x = source->read("x").clone();
  for (size_t i = 0; i + 1 < source->tensors().size(); ++i) {
    checkpoint.state.history.push_back(source->read(fmt::format("history.{}", i)).clone());
  }
  return checkpoint;
}

int64_t checkpoint_bytes(const std::vector<int64_t>& latent_shape) {
  int64_t bytes = 4 * kTensors;
  for (const int64_t size : latent_shape) bytes *= size;
  return bytes;
}

}  // namespace strobe::pipelines
