#include "pipelines/embedding_store.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "core/timer.h"
#include "video/sha256.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMemoryBytes = int64_t{512} << 20;
constexpr uintmax_t kFolderBytes = uintmax_t{2} << 30;

// Removes the files that were written first until the folder is small enough.
void shrink(const fs::path& folder) {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  uintmax_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".safetensors") continue;
    bytes += entry.file_size(error);
    files.emplace_back(entry.last_write_time(error), entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& [time, path] : files) {
    if (bytes <= kFolderBytes) return;
    bytes -= std::min(bytes, fs::file_size(path, error));
    fs::remove(path, error);
  }
}

}  // namespace

EmbeddingStore::EmbeddingStore(const models::ModelFolder& folder, EmbeddingOptions options)
    : folder_(folder), options_(std::move(options)) {}

void EmbeddingStore::announce(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    if (is_announced_.insert(text).second) announced_.push_back(text);
  }
}

const at::Tensor* EmbeddingStore::find_in_memory(const std::string& text) {
  const auto found = in_memory_.find(text);
  if (found == in_memory_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found->second);
  return &recent_.front().states;
}

fs::path EmbeddingStore::file_of(const std::string& text) const {
  return options_.folder /
         (video::sha256(fmt::format("{}\n{}\n{}\n{} threads\n{}\n{}", options_.key, at::toString(options_.dtype),
                                    options_.device.str(), at::get_num_threads(), at::get_cpu_capability(),
                                    folder_.clean_prompt(text))) +
          ".safetensors");
}

bool EmbeddingStore::load_from_disk(const std::string& text) {
  if (options_.folder.empty()) return false;
  const fs::path path = file_of(text);
  std::error_code error;
  if (!fs::exists(path, error)) return false;
  try {
    // A copy: a mapped file that another process removes for room would stay valid, but not one that is cut short.
    at::Tensor states = weights::open_safetensors(path)->read("states").clone();
    if (states.dim() != 2 || states.scalar_type() != at::kFloat || !at::isfinite(states).all().item<bool>())
      return false;
    keep(text, std::move(states));
  } catch (const Error& broken) {
    log_warning("{}; encoding the prompt again", broken.what());
    fs::remove(path, error);
    return false;
  }
  return true;
}

void EmbeddingStore::keep(const std::string& text, at::Tensor states) {
  memory_bytes_ += static_cast<int64_t>(states.nbytes());
  recent_.push_front({text, std::move(states)});
  in_memory_[text] = recent_.begin();
  if (options_.folder.empty() || is_disk_broken_) return;  // there is no second copy
  while (memory_bytes_ > kMemoryBytes && recent_.size() > 1) {
    memory_bytes_ -= static_cast<int64_t>(recent_.back().states.nbytes());
    in_memory_.erase(recent_.back().text);
    recent_.pop_back();
  }
}

void EmbeddingStore::write_to_disk(const std::string& text, const at::Tensor& states) {
  if (options_.folder.empty() || is_disk_broken_) return;
  try {
    std::error_code error;
    fs::create_directories(options_.folder, error);
    weights::save_safetensors(file_of(text), {{"states", states}});
  } catch (const Error& broken) {
    // Told before anything is dropped from memory: `keep` holds all from here on.
    is_disk_broken_ = true;
    log_warning("prompts are not kept on disk: {}", broken.what());
  }
}

void EmbeddingStore::encode_announced(const std::string& wanted, const EncodingEvents& events) {
  announce({wanted});
  std::vector<std::string> missing;
  std::error_code error;
  for (const std::string& text : announced_) {
    if (find_in_memory(text) || (!options_.folder.empty() && fs::exists(file_of(text), error) && text != wanted))
      continue;
    missing.push_back(text);
  }
  const Timer timer;
  const auto tokenizer = folder_.load_tokenizer();
  const auto encoder = folder_.load_text_encoder(options_.dtype, options_.device);
  load_ms_ += timer.milliseconds();
  const int64_t limit = folder_.info().padded_text_tokens;
  // The wanted one last: it is then the newest in memory.
  std::stable_partition(missing.begin(), missing.end(), [&](const std::string& text) { return text != wanted; });
  int64_t done = 0;
  for (const std::string& text : missing) {
    const std::vector<int32_t> ids = tokenizer->encode(folder_.clean_prompt(text), limit);
    if (static_cast<int64_t>(ids.size()) == limit) {
      log_warning("the prompt reaches the model's limit of {} tokens; what is beyond is cut off", limit);
    }
    at::Tensor states = encoder->encode(ids, events.before_block);
    if (!at::isfinite(states).all().item<bool>())
      throw_not_finite(folder_, "text_encoder", "the text encoder's output");
    write_to_disk(text, states);
    keep(text, std::move(states));
    if (events.on_text) events.on_text(++done, static_cast<int64_t>(missing.size()));
  }
  if (!options_.folder.empty()) shrink(options_.folder);
}

models::TextEmbedding EmbeddingStore::get(const std::string& text, const EncodingEvents& events) {
  const at::Tensor* states = find_in_memory(text);
  if (!states && load_from_disk(text)) states = find_in_memory(text);
  if (!states) {
    encode_announced(text, events);
    states = find_in_memory(text);
  }
  return {.states = *states, .padded_tokens = folder_.info().padded_text_tokens};
}

void throw_not_finite(const models::ModelFolder& folder, const std::string& part, const std::string& what) {
  constexpr size_t kShown = 4;
  const std::vector<std::string> names = folder.find_non_finite(part, kShown + 1);
  if (names.empty()) {
    throw Error(
        fmt::format("{} is not finite, though all weights of the {} are; the settings (dtype, guidance scale, "
                    "LoRA weight) do not fit",
                    what, part));
  }
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) list += "\n  " + names[i];
  if (names.size() > kShown) list += "\n  and more";
  throw WeightError(fmt::format("{} is not finite: weights of the {} hold NaN or infinity:{}", what, part, list));
}

}  // namespace strobe::pipelines
