#include "models/random_checkpoint.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/noise.h"
#include "core/output_file.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::models {
namespace {

namespace fs = std::filesystem;
using weights::TensorSpec;

// Elements drawn at a time: a multiple of 16 (noise.h), 64 MB in float32.
constexpr int64_t kPartElements = int64_t{1} << 24;

void check_space(const fs::path& folder, uint64_t needed) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error || space.available >= needed) return;
  throw IoError(fmt::format("{}: {:.2f} GB are needed, {:.2f} GB are free", folder_of(folder).string(),
                            static_cast<double>(needed) / 1e9, static_cast<double>(space.available) / 1e9));
}

// Values that keep activations at unit scale: matrices and kernels with variance 1 / inputs, norms near one, biases and
// tables small.
struct Gain {
  double scale = 0.05, shift = 0;
};

Gain gain_of(const TensorSpec& spec) {
  const bool is_norm =
      spec.name.ends_with(".gamma") || (spec.name.find("norm") != std::string::npos && spec.name.ends_with(".weight"));
  if (is_norm) return {.scale = 0.05, .shift = 1};
  if (spec.shape.size() < 2) return {};
  return {.scale = std::sqrt(static_cast<double>(spec.shape[0]) / static_cast<double>(spec.numel()))};
}

class WeightsWriter {
 public:
  WeightsWriter(const RandomCheckpointOptions& options, uint64_t total)
      : options_(options), total_(total), seed_(options.seed << 16) {}

  void write(const fs::path& root, const CheckpointWeights& weights);

 private:
  struct Entry {
    const TensorSpec* spec;
    uint64_t seed;
  };
  void write_shard(const fs::path& path, std::vector<Entry> entries, at::ScalarType dtype);
  void write_tensor(weights::SafetensorsWriter& writer, const Entry& entry, at::ScalarType dtype);

  const RandomCheckpointOptions& options_;
  uint64_t total_, written_ = 0;
  uint64_t seed_;  // one a tensor, in the order of the lists
};

void WeightsWriter::write_tensor(weights::SafetensorsWriter& writer, const Entry& entry, at::ScalarType dtype) {
  const auto report = [&](int64_t elements) {
    written_ += static_cast<uint64_t>(elements) * c10::elementSize(dtype);
    if (options_.on_bytes) options_.on_bytes(written_, total_);
    if (options_.is_interrupted && options_.is_interrupted()) throw InterruptedError("interrupted");
  };
  const int64_t count = entry.spec->numel();
  if (options_.is_zero) {
    writer.skip();
    report(count);
    return;
  }
  const Gain gain = gain_of(*entry.spec);
  NoiseStream noise(entry.seed);
  for (int64_t begin = 0; begin < count; begin += kPartElements) {
    const int64_t part = std::min(kPartElements, count - begin);
    writer.append(noise.next(part).mul_(gain.scale).add_(gain.shift).to(dtype));
    report(part);
  }
}

void WeightsWriter::write_shard(const fs::path& path, std::vector<Entry> entries, at::ScalarType dtype) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.spec->name < b.spec->name; });
  std::vector<weights::TensorInfo> infos;
  infos.reserve(entries.size());
  for (const Entry& entry : entries) infos.push_back({entry.spec->name, entry.spec->shape, dtype});
  weights::SafetensorsWriter writer(path, std::move(infos),
                                    {{"format", "pt"}, {"strobe.weights", options_.is_zero ? "zero" : "random"}});
  for (const Entry& entry : entries) write_tensor(writer, entry, dtype);
  writer.publish();
}

void WeightsWriter::write(const fs::path& root, const CheckpointWeights& weights) {
  const at::ScalarType dtype = options_.dtype.value_or(weights.dtype);
  const uint64_t element = c10::elementSize(dtype);
  std::vector<std::vector<Entry>> shards(1);
  uint64_t shard_bytes = 0, total = 0;
  for (const TensorSpec& spec : weights.tensors) {
    const uint64_t bytes = static_cast<uint64_t>(spec.numel()) * element;
    if (shard_bytes + bytes > kShardBytes && !shards.back().empty()) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shards.back().push_back({&spec, seed_++});
    shard_bytes += bytes;
    total += bytes;
  }
  const fs::path folder = root / weights.folder;
  make_folders(folder);
  if (shards.size() == 1) {
    write_shard(folder / (weights.stem + ".safetensors"), std::move(shards[0]), dtype);
    return;
  }
  std::map<std::string, std::string> file_of;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file = fmt::format("{}-{:05}-of-{:05}.safetensors", weights.stem, i + 1, shards.size());
    for (const Entry& entry : shards[i]) file_of[entry.spec->name] = file;
    write_shard(folder / file, std::move(shards[i]), dtype);
  }
  ConfigNode::Map map;
  for (const auto& [name, file] : file_of) map.emplace_back(name, ConfigNode::string(file));
  const ConfigNode index = ConfigNode::map(
      {{"metadata", ConfigNode::map({{"total_size", ConfigNode::integer(static_cast<int64_t>(total))}})},
       {"weight_map", ConfigNode::map(std::move(map))}});
  write_file(folder / (weights.stem + ".safetensors.index.json"), weights::to_json(index) + "\n");
}

}  // namespace

uint64_t checkpoint_bytes(const CheckpointFiles& files, std::optional<at::ScalarType> dtype) {
  uint64_t sum = 0;
  for (const CheckpointWeights& part : files.weights) {
    sum +=
        static_cast<uint64_t>(weights::count_parameters(part.tensors)) * c10::elementSize(dtype.value_or(part.dtype));
  }
  return sum;
}

void write_texts(const CheckpointFiles& files, const fs::path& folder) {
  for (const auto& [name, text] : files.texts) {
    make_folders((folder / name).parent_path());
    write_file(folder / name, text + "\n");
  }
}

void write_random_checkpoint(const fs::path& folder, const CheckpointFiles& files,
                             const RandomCheckpointOptions& options) {
  const uint64_t total = checkpoint_bytes(files, options.dtype);
  OutputFolder part(folder);
  if (!options.is_zero) check_space(part.path(), total);
  write_texts(files, part.path());
  files.write_tokenizer(part.path() / "tokenizer");
  WeightsWriter writer(options, total);
  for (const CheckpointWeights& weights : files.weights) writer.write(part.path(), weights);
  part.publish();
}

}  // namespace strobe::models
