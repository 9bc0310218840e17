#include "pipelines/checkpoint.h"

#include <charconv>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {
namespace {

constexpr const char* kAttention = "attention/";
constexpr int64_t kTensors = 4;  // the sample and the longest history

int64_t number(const std::map<std::string, std::string>& metadata, const char* key, const std::filesystem::path& path) {
  const auto found = metadata.find(key);
  int64_t value = -1;
  if (found != metadata.end())
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
  if (value < 0) throw WeightError(fmt::format("{}: not a checkpoint: no '{}' in its header", path.string(), key));
  return value;
}

ConfigNode text(const std::string& value) { return ConfigNode::string(value); }
ConfigNode integer(int64_t value) { return ConfigNode::integer(value); }
ConfigNode number(double value) { return ConfigNode::number(value); }

std::string counts_text(const Checkpoint& c) {
  ConfigNode::List rows, sites;
  for (const attention::AttentionRow& r : c.attention_rows) {
    rows.push_back(ConfigNode::list({text(r.kind), text(r.pattern), text(r.backend), text(r.note), integer(r.calls),
                                     number(r.pairs), number(r.dense_pairs), number(r.milliseconds), integer(r.plans),
                                     integer(r.cache_hits), number(r.selection_ms), text(r.passed_over)}));
  }
  for (const attention::SiteRow& s : c.attention_sites) {
    sites.push_back(
        ConfigNode::list({integer(s.step), integer(s.layer), text(s.method), text(s.kernel), number(s.pairs),
                          number(s.dense_pairs), integer(s.plans), integer(s.cache_hits), number(s.selection_ms)}));
  }
  const attention::CacheCounts& p = c.pattern_cache;
  const ConfigNode node = ConfigNode::map(
      {{"rows", ConfigNode::list(std::move(rows))},
       {"sites", ConfigNode::list(std::move(sites))},
       {"cache", ConfigNode::list({integer(p.hits), integer(p.misses), integer(p.refreshes), integer(p.evictions)})}});
  return weights::to_json(node, /*indent=*/-1);
}

void read_counts(const std::string& json, Checkpoint& c) {
  const ConfigNode node = weights::parse_json(json, "checkpoint");
  for (const ConfigNode& row : node.at("rows").as_list()) {
    const ConfigNode::List& r = row.as_list();
    c.attention_rows.push_back({.kind = r.at(0).as_string(),
                                .pattern = r.at(1).as_string(),
                                .backend = r.at(2).as_string(),
                                .note = r.at(3).as_string(),
                                .calls = r.at(4).as_integer(),
                                .pairs = r.at(5).as_number(),
                                .dense_pairs = r.at(6).as_number(),
                                .milliseconds = r.at(7).as_number(),
                                .plans = r.at(8).as_integer(),
                                .cache_hits = r.at(9).as_integer(),
                                .selection_ms = r.at(10).as_number()});
    c.attention_rows.back().passed_over = r.at(11).as_string();
  }
  for (const ConfigNode& site : node.at("sites").as_list()) {
    const ConfigNode::List& s = site.as_list();
    c.attention_sites.push_back({.step = static_cast<int>(s.at(0).as_integer()),
                                 .layer = static_cast<int>(s.at(1).as_integer()),
                                 .method = s.at(2).as_string(),
                                 .kernel = s.at(3).as_string(),
                                 .pairs = s.at(4).as_number(),
                                 .dense_pairs = s.at(5).as_number(),
                                 .plans = s.at(6).as_integer(),
                                 .cache_hits = s.at(7).as_integer(),
                                 .selection_ms = s.at(8).as_number()});
  }
  const ConfigNode::List& cache = node.at("cache").as_list();
  c.pattern_cache = {.hits = cache.at(0).as_integer(),
                     .misses = cache.at(1).as_integer(),
                     .refreshes = cache.at(2).as_integer(),
                     .evictions = cache.at(3).as_integer()};
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  std::map<std::string, at::Tensor> tensors = {{"x", checkpoint.state.x}};
  for (size_t i = 0; i < checkpoint.state.history.size(); ++i) {
    tensors.emplace(fmt::format("history.{}", i), checkpoint.state.history[i]);
  }
  for (const auto& [name, tensor] : checkpoint.attention_states) tensors.emplace(kAttention + name, tensor);
  weights::save_safetensors(path, tensors,
                            {{"request_hash", checkpoint.request_hash},
                             {"step", std::to_string(checkpoint.state.step)},
                             {"first_step", std::to_string(checkpoint.state.first_step)},
                             {"steps", std::to_string(checkpoint.steps)},
                             {"forwards", std::to_string(checkpoint.forwards)},
                             {"attention", counts_text(checkpoint)}});
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
  const std::string prefix = kAttention;
  for (const weights::TensorInfo& info : source->tensors()) {
    if (info.name.starts_with(prefix)) {
      checkpoint.attention_states.emplace(info.name.substr(prefix.size()), source->read(info.name).clone());
    }
  }
  const size_t others = 1 + checkpoint.attention_states.size();
  for (size_t i = 0; i + others < source->tensors().size(); ++i) {
    checkpoint.state.history.push_back(source->read(fmt::format("history.{}", i)).clone());
  }
  if (const auto counts = metadata.find("attention"); counts != metadata.end()) {
    read_counts(counts->second, checkpoint);
  }
  return checkpoint;
}

int64_t checkpoint_bytes(const std::vector<int64_t>& latent_shape) {
  int64_t bytes = 4 * kTensors;
  for (const int64_t size : latent_shape) bytes *= size;
  return bytes;
}

}  // namespace strobe::pipelines
