// Sharded checkpoints and the choice of a folder's weights file.
#include <fmt/ranges.h>

#include <set>

#include "core/error.h"
#include "core/torch.h"
#include "weights/json.h"
#include "weights/safetensors.h"
#include "weights/torch_archive.h"

namespace strobe::weights {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLinesShown = 12;
constexpr std::string_view kIndexEnding = ".safetensors.index.json";
constexpr std::array<const char*, 2> kStems{"diffusion_pytorch_model", "model"};

class ShardedSource final : public TensorSource {
 public:
  explicit ShardedSource(const std::map<std::string, std::shared_ptr<const TensorSource>>& shards) {
    for (const auto& [file, shard] : shards) {
      for (const TensorInfo& info : shard->tensors()) {
        shard_of_.emplace(info.name, shard);
        infos_.push_back(info);
      }
      metadata_.insert(shard->metadata().begin(), shard->metadata().end());
    }
    std::sort(infos_.begin(), infos_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  }

  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  at::Tensor read(const std::string& name) const override { return shard(name).read(name); }
  void prefetch(const std::string& name) const override { shard(name).prefetch(name); }
  void release(const std::string& name) const override { shard(name).release(name); }
  std::string file_of(const std::string& name) const override { return shard(name).file_of(name); }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }

 private:
  const TensorSource& shard(const std::string& name) const {
    auto found = shard_of_.find(name);
    if (found == shard_of_.end()) throw WeightError(fmt::format("{}: no such tensor in any shard", name));
    return *found->second;
  }

  std::vector<TensorInfo> infos_;
  std::unordered_map<std::string, std::shared_ptr<const TensorSource>> shard_of_;
  std::map<std::string, std::string> metadata_;
};

[[noreturn]] void throw_lines(const fs::path& index_path, std::string_view title,
                              const std::vector<std::string>& lines) {
  std::string message = fmt::format("{}: {}:", index_path.string(), title);
  for (size_t i = 0; i < std::min(lines.size(), kLinesShown); ++i) message += "\n  " + lines[i];
  if (lines.size() > kLinesShown) message += fmt::format("\n  ... and {} more", lines.size() - kLinesShown);
  throw WeightError(message);
}

// Tensor name -> shard's file name.
std::map<std::string, std::string> read_weight_map(const fs::path& index_path) {
  std::map<std::string, std::string> weight_map;
  try {
    const ConfigNode root = load_json(index_path);
    for (const auto& [name, file] : root.at("weight_map").as_map()) weight_map.emplace(name, file.as_string());
  } catch (const ConfigError& error) {
    throw WeightError(error.what());
  }
  for (const auto& [name, file] : weight_map) {
    // An index comes from elsewhere and names files beside itself, nothing else.
    if (file.empty() || file == "." || file.find("..") != std::string::npos ||
        file.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      throw WeightError(
          fmt::format("{}: {}: '{}' is not the name of a file in the same folder", index_path.string(), name, file));
    }
  }
  if (weight_map.empty()) throw WeightError(fmt::format("{}: weight_map is empty", index_path.string()));
  return weight_map;
}

// Whether the name is `<stem>.safetensors` or its index with one variant word somewhere after the stem.
bool is_variant_of(const std::string& name, const std::string& stem) {
  if (!name.starts_with(stem + ".")) return false;
  std::vector<std::string> parts;
  std::string rest = name.substr(stem.size() + 1);
  for (size_t begin = 0; begin <= rest.size();) {
    size_t end = std::min(rest.find('.', begin), rest.size());
    parts.push_back(rest.substr(begin, end - begin));
    begin = end + 1;
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty() || parts[i] == "index" || parts[i] == "json" || parts[i] == "safetensors") continue;
    std::vector<std::string> others = parts;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    const std::string joined = fmt::format("{}", fmt::join(others, "."));
    if (joined == "safetensors" ? i == 0 : joined == kIndexEnding.substr(1) && i < 3) return true;
  }
  return false;
}

std::shared_ptr<const TensorSource> open_file(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name.ends_with(".safetensors")) return open_safetensors(path);
  if (name.ends_with(".json") && name.find(".index.") != std::string::npos) return open_safetensors_index(path);
  if (name.ends_with(".pth")) return open_torch_archive(path);
  throw WeightError(fmt::format("{}: weights are .safetensors, .safetensors.index.json or .pth files", path.string()));
}

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) throw IoError(fmt::format("{}: cannot be listed: {}", folder.string(), error.message()));
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::shared_ptr<const TensorSource> open_safetensors_index(const fs::path& index_path) {
  const std::map<std::string, std::string> weight_map = read_weight_map(index_path);
  const fs::path folder = index_path.parent_path();

  std::map<std::string, std::shared_ptr<const TensorSource>> shards;
  for (const auto& [name, file] : weight_map) shards.emplace(file, nullptr);
  std::vector<std::string> missing;
  for (const auto& [file, shard] : shards) {
    std::error_code error;
    if (!fs::exists(folder / file, error)) missing.push_back(file);
  }
  if (!missing.empty()) throw_lines(index_path, "shards are missing", missing);

  std::vector<std::string> problems;
  std::set<std::string> found;
  for (auto& [file, shard] : shards) {
    shard = open_safetensors(folder / file);
    for (const TensorInfo& info : shard->tensors()) {
      auto given = weight_map.find(info.name);
      if (given == weight_map.end()) {
        problems.push_back(fmt::format("{}: in shard {}, not in the index", info.name, file));
      } else if (given->second != file) {
        problems.push_back(fmt::format("{}: in shard {}, but the index says {}", info.name, file, given->second));
      } else {
        found.insert(info.name);
      }
    }
  }
  for (const auto& [name, file] : weight_map) {
    if (!found.contains(name)) problems.push_back(fmt::format("{}: not in shard {}", name, file));
  }
  if (!problems.empty()) throw_lines(index_path, "index and shards disagree", problems);
  return std::make_shared<ShardedSource>(shards);
}

std::shared_ptr<const TensorSource> open_weights(const fs::path& folder_or_file) {
  std::error_code error;
  const fs::file_status status = fs::status(folder_or_file, error);
  if (!fs::exists(status)) throw WeightError(fmt::format("{}: no such file or folder", folder_or_file.string()));
  if (!fs::is_directory(status)) return open_file(folder_or_file);

  const std::vector<std::string> present = files_in(folder_or_file);
  std::vector<std::string> plain, variants, wanted;
  for (const char* stem : kStems) {
    for (const std::string& name : {std::string(stem) + ".safetensors", stem + std::string(kIndexEnding)}) {
      wanted.push_back(name);
      if (std::binary_search(present.begin(), present.end(), name)) plain.push_back(name);
    }
    for (const std::string& name : present) {
      if (is_variant_of(name, stem)) variants.push_back(name);
    }
  }
  const std::vector<std::string>& candidates = plain.empty() ? variants : plain;
  if (candidates.size() == 1) return open_file(folder_or_file / candidates.front());
  if (candidates.empty()) {
    throw WeightError(fmt::format("{}: no weights; looked for {} and their variants (<stem>.<variant>.safetensors)",
                                  folder_or_file.string(), fmt::join(wanted, ", ")));
  }
  throw WeightError(fmt::format("{}: more than one candidate: {}; name the file itself", folder_or_file.string(),
                                fmt::join(candidates, ", ")));
}

}  // namespace strobe::weights
