// Prompts as the transformer reads them: each distinct text encoded once, kept in memory and on disk.
//
// Contract  The encoder is loaded when the first text is wanted that neither memory nor disk has; it then encodes every
//           text that was announced, and is released. A file of the cache is named by all that decides its bits: text,
//           weights of encoder and tokenizer, dtype, device, threads, instruction set and build. With a folder, memory
//           holds at most kMemoryBytes and the folder at most kFolderBytes (the oldest go first).
// Errors    A cache that cannot be read or written is said once and done without. Error naming the first bad weights for
//           an embedding that is not finite.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "models/model_folder.h"

namespace strobe::pipelines {

struct EmbeddingOptions {
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  std::filesystem::path folder;  // empty: memory alone
  std::string key;               // what decides the bits beside text and machine: build and weights
};

// Both may throw to stop.
struct EncodingEvents {
  std::function<void(int64_t done, int64_t total)> on_text;  // after each text that is encoded
  std::function<void()> before_block;                        // of the encoder
};

class EmbeddingStore {
 public:
  EmbeddingStore(const models::ModelFolder& folder, EmbeddingOptions options);

  // Texts that will be asked for.
  void announce(const std::vector<std::string>& texts);
  // What was encoded before an event threw is kept.
  models::TextEmbedding get(const std::string& text, const EncodingEvents& events);

  double load_ms() const { return load_ms_; }

 private:
  struct Entry {
    std::string text;
    at::Tensor states;
  };
  const at::Tensor* find_in_memory(const std::string& text);
  bool load_from_disk(const std::string& text);
  void keep(const std::string& text, at::Tensor states);
  void write_to_disk(const std::string& text, const at::Tensor& states);
  void encode_announced(const std::string& wanted, const EncodingEvents& events);
  std::filesystem::path file_of(const std::string& text) const;

  const models::ModelFolder& folder_;
  EmbeddingOptions options_;
  std::vector<std::string> announced_;  // in the order of the jobs
  std::unordered_set<std::string> is_announced_;
  std::list<Entry> recent_;  // newest first
  std::unordered_map<std::string, std::list<Entry>::iterator> in_memory_;
  int64_t memory_bytes_ = 0;
  bool is_disk_broken_ = false;  // for writing
  double load_ms_ = 0;
};

// Error for values that are not finite, naming the weights of the part that are not either.
[[noreturn]] void throw_not_finite(const models::ModelFolder& folder, const std::string& part, const std::string& what);

}  // namespace strobe::pipelines
