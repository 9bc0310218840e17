#include "training/checkpoint.h"

#include "core/torch.h"
// After the precompiled header.
#include <cstring>

#include "core/counter_random.h"
#include "core/error.h"
#include "core/log.h"
#include "core/output_file.h"
#include "weights/safetensors.h"

namespace strobe::training {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLast = "checkpoint.safetensors";
constexpr const char* kPrevious = "checkpoint.previous.safetensors";
constexpr const char* kRecipeKey = "strobe.recipe";
constexpr const char* kHashKey = "strobe.content";

// Four lanes, so that a checkpoint's megabytes take milliseconds; strong enough against accidents, not against enemies.
class Hash {
 public:
  void add(const void* data, size_t bytes) {
    const auto* p = static_cast<const unsigned char*>(data);
    constexpr size_t kWord = sizeof(uint64_t), kLanes = 4;
    size_t i = 0;
    for (; i + kLanes * kWord <= bytes; i += kLanes * kWord) {
      for (size_t lane = 0; lane < kLanes; ++lane) mix(lane, word(p + i + lane * kWord, kWord));
    }
    for (; i < bytes; i += kWord) mix(0, word(p + i, std::min(kWord, bytes - i)));
    mix(1, bytes);
  }
  std::string text() const {
    uint64_t all = 0;
    for (const uint64_t lane : lanes_) all = mix_bits(all ^ lane);
    return fmt::format("{:016x}", all);
  }

 private:
  static uint64_t word(const unsigned char* p, size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, p, bytes);
    return value;
  }
  void mix(size_t lane, uint64_t value) {
    constexpr uint64_t kOdd = 0x9E3779B185EBCA87U;
    lanes_[lane] = (lanes_[lane] ^ value) * kOdd;
    lanes_[lane] ^= lanes_[lane] >> 29;
  }
  std::array<uint64_t, 4> lanes_ = {1, 2, 3, 4};
};

void sync_rename(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw IoError(fmt::format("{}: rename: {}", from.string(), error.message()));
}

const std::string& hash_of_stage(const std::vector<std::string>& stage_hashes, size_t stage) {
  return stage_hashes.at(std::min(stage, stage_hashes.size() - 1));  // behind the last: all is done
}

LoadedCheckpoint read(const fs::path& path, const std::vector<std::string>& stage_hashes) {
  const auto source = weights::open_safetensors(path);
  const auto& metadata = source->metadata();
  const auto entry = [&](const char* key) {
    const auto found = metadata.find(key);
    if (found == metadata.end())
      throw WeightError(fmt::format("{}: is no checkpoint of a training run", path.string()));
    return found->second;
  };
  if (std::find(stage_hashes.begin(), stage_hashes.end(), entry(kRecipeKey)) == stage_hashes.end()) {
    throw ConfigError(fmt::format(
        "{}: belongs to another recipe: the model, the seed, or a stage up to the one it was written in has "
        "changed; go on with the old file, or begin in another folder",
        path.string()));
  }
  LoadedCheckpoint loaded{.path = path, .state = {}};
  for (const weights::TensorInfo& info : source->tensors()) {
    loaded.state[info.name] = source->read(info.name).clone();
  }
  if (content_hash(loaded.state) != entry(kHashKey)) {
    throw WeightError(fmt::format("{}: its content does not match its hash: the file is damaged", path.string()));
  }
  return loaded;
}

}  // namespace

std::string content_hash(const NamedTensors& tensors) {
  Hash hash;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor stored = tensor.detach().cpu().contiguous();
    hash.add(name.data(), name.size());
    hash.add(stored.const_data_ptr(), stored.nbytes());
  }
  return hash.text();
}

std::string text_hash(const std::string& text) {
  Hash hash;
  hash.add(text.data(), text.size());
  return hash.text();
}

void save_checkpoint(const fs::path& folder, const NamedTensors& state, size_t stage,
                     const std::vector<std::string>& stage_hashes) {
  const fs::path last = folder / kLast, fresh = temporary_beside(last);
  weights::save_safetensors(fresh, state,
                            {{kRecipeKey, hash_of_stage(stage_hashes, stage)}, {kHashKey, content_hash(state)}});
  std::error_code error;
  if (fs::exists(last, error)) sync_rename(last, folder / kPrevious);
  publish_file(fresh, last);
}

std::optional<LoadedCheckpoint> load_checkpoint(const fs::path& folder, const std::vector<std::string>& stage_hashes) {
  std::string damage;
  for (const char* name : {kLast, kPrevious}) {
    std::error_code error;
    if (!fs::exists(folder / name, error)) continue;
    try {
      LoadedCheckpoint loaded = read(folder / name, stage_hashes);
      if (!damage.empty()) log_warning("{}; going on from the one before it, {}", damage, loaded.path.string());
      return loaded;
    } catch (const WeightError& caught) {
      if (!damage.empty()) throw WeightError(fmt::format("{}; {}", damage, caught.what()));
      damage = caught.what();
    }
  }
  if (!damage.empty()) throw WeightError(damage + "; there is none before it");
  return {};
}

}  // namespace strobe::training
