// Pyramid sparse attention: a query block reads its important key blocks in full, less important ones pooled by 2, 4 or
// 8, and the rest not at all. Planned anew at every call.
//
// Source    "PSA: Pyramid Sparse Attention for Efficient Video Understanding and Generation", arXiv 2512.04025, and its
//           code, github ziplab/Pyramid-Sparse-Attention. Where they differ the code counts: its presets go with it.
// Differs   text is found where it stands and read in full both ways (the source forces the last columns); a short last
//           block is pooled over its own tokens (tail=replicate: as the source); samples follow from the seed.
// State     none; with sample=given, tensors `q_offsets` and `k_offsets` hold the sampled in-block offsets.
#include "attention/pattern.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/patterns/psa_importance.h"
#include "attention/patterns/psa_levels.h"
#include "attention/text_blocks.h"
#include "core/error.h"
#include "core/parallel.h"

namespace strobe::attention {
namespace {

constexpr double kLargestBlock = 4096;
constexpr int64_t kPooledMost = 8;  // block sizes are multiples of it
constexpr int64_t kSampled = 4;     // one token of this many, as in the source

enum class Sampling { kRandom, kStrided, kGiven };

struct PsaOptions {
  PyramidLevels levels;
  std::optional<std::array<double, 3>> cap;
  bool is_reordered = true;
  bool is_softmax = false;
  bool replicates_tail = false;
  Sampling sampling = Sampling::kRandom;
  int64_t block_size = 128;
  int64_t query_block = 128;
};

class PsaPattern final : public AttentionPattern {
 public:
  explicit PsaPattern(const PsaOptions& options) : options_(options) {}
  std::string name() const override { return "psa"; }
  PlanDependence dependence() const override { return {.on_tensors = true}; }
  PatternOrders order(const AttentionSite& site) const override {
    if (!options_.is_reordered) return {};
    const auto order = gilbert_order(site.grid);
    return {.q = order, .k = order};
  }
  AttentionPlan plan(const PatternCall& call) const override;
  // Of the quota rule, where the ends alone decide; caps may only refine.
  std::optional<NominalDensity> nominal_density(const AttentionSite& site, int64_t) const override {
    if (!options_.levels.is_quota || options_.cap) return {};
    const int64_t blocks = (site.grid.tokens() + options_.block_size - 1) / options_.block_size;
    std::vector<float> importance(static_cast<size_t>(blocks), 1.0F);
    std::vector<uint8_t> factors(static_cast<size_t>(blocks));
    assign_levels(importance.data(), blocks, options_.levels, factors.data());
    double kept = 0;
    for (const uint8_t factor : factors) kept += factor == 0 ? 0 : 1.0 / factor;
    return NominalDensity{.density = kept / static_cast<double>(blocks)};
  }

 private:
  at::Tensor offsets(const PatternCall& call, const std::string& side, int64_t block) const;
  std::vector<uint8_t> factors(const PatternCall& call) const;

  PsaOptions options_;
};

at::Tensor PsaPattern::offsets(const PatternCall& call, const std::string& side, int64_t block) const {
  const int64_t heads = call.q.size(1);
  if (options_.sampling == Sampling::kRandom) return random_offsets(call.site, heads, block, side == "q" ? 0 : 1);
  if (options_.sampling == Sampling::kStrided) return strided_offsets(heads, block);
  const auto found = call.state.tensors.find(side + "_offsets");
  if (found == call.state.tensors.end()) {
    throw ConfigError(fmt::format("psa: sample=given: no tensor {}_offsets [H, {}] was given", side, block / kSampled));
  }
  const at::Tensor& given = found->second;
  if (given.numel() != heads * (block / kSampled) || at::isFloatingType(given.scalar_type())) {
    throw ConfigError(
        fmt::format("psa: sample=given: {}_offsets: expected {} integers for each of {} heads, found {} {}", side,
                    block / kSampled, heads, given.numel(), at::toString(given.scalar_type())));
  }
  at::Tensor offsets = given.to(at::kLong).cpu().view({heads, -1});
  if (offsets.min().item<int64_t>() < 0 || offsets.max().item<int64_t>() >= block) {
    throw ConfigError(fmt::format("psa: sample=given: {}_offsets: expected offsets in [0, {})", side, block));
  }
  return offsets;
}

// [H, M, K], before text is looked at.
std::vector<uint8_t> PsaPattern::factors(const PatternCall& call) const {
  const at::Tensor importance = block_importance({.q = call.q,
                                                  .k = call.k,
                                                  .key_bias = call.key_bias,
                                                  .q_offsets = offsets(call, "q", options_.query_block),
                                                  .k_offsets = offsets(call, "k", options_.block_size),
                                                  .query_block = options_.query_block,
                                                  .key_block = options_.block_size,
                                                  .orders = call.orders,
                                                  .is_softmax = options_.is_softmax},
                                                 call.scorer);
  const int64_t query_blocks = importance.size(1), key_blocks = importance.size(2);
  at::Tensor caps;
  if (options_.cap) caps = similarity_caps(call.k, call.orders.k.get(), options_.block_size, *options_.cap);
  std::vector<uint8_t> factors(static_cast<size_t>(importance.numel()));
  const float* const scores = importance.const_data_ptr<float>();
  const uint8_t* const cap = options_.cap ? caps.const_data_ptr<uint8_t>() : nullptr;
  parallel_for(0, importance.size(0) * query_blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint8_t* const of_row = factors.data() + row * key_blocks;
      assign_levels(scores + row * key_blocks, key_blocks, options_.levels, of_row);
      if (cap == nullptr) continue;
      const uint8_t* const of_head = cap + row / query_blocks * key_blocks;
      for (int64_t j = 0; j < key_blocks; ++j) of_row[j] = std::min(of_row[j], of_head[j]);
    }
  });
  return factors;
}

AttentionPlan PsaPattern::plan(const PatternCall& call) const {
  const std::vector<uint8_t> factor = factors(call);
  auto layout =
      std::make_shared<BlockLayout>(call.q.size(1), BlockLayout::uniform_offsets(call.q.size(2), options_.query_block),
                                    BlockLayout::uniform_offsets(call.k.size(2), options_.block_size));
  const BlockRange video_rows = video_blocks(call.site.grid, options_.is_reordered, layout->query_offsets());
  const BlockRange video_cols = video_blocks(call.site.grid, options_.is_reordered, layout->key_offsets());
  const int64_t query_blocks = layout->query_blocks(), key_blocks = layout->key_blocks();
  for (int64_t h = 0; h < layout->heads(); ++h) {
    for (int64_t i = 0; i < query_blocks; ++i) {
      if (!video_rows.contains(i)) {
        layout->set_row(h, i);
        continue;
      }
      const uint8_t* const of_row = factor.data() + (h * query_blocks + i) * key_blocks;
      for (int64_t j = video_cols.first; j < video_cols.end; ++j) {
        if (of_row[j] != 0) layout->set(h, i, j, of_row[j]);
      }
      layout->set_range(h, i, 0, video_cols.first);
      layout->set_range(h, i, video_cols.end, key_blocks);
    }
  }
  AttentionPlan plan;
  plan.layout = std::move(layout);
  plan.pooling.replicates_tail = options_.replicates_tail;
  plan.pooling.replicated_size = options_.replicates_tail ? options_.block_size : 0;
  return plan;
}

std::optional<std::array<double, 3>> read_cap(OptionReader& reader) {
  const std::string text = reader.text("cap", "0.7/0.65/0.6", "off, or 3 numbers a/b/c in [-1, 1]",
                                       "cosines between keys that allow pooling them by 2, 4 and 8");
  if (text == "off" || text == "0") return {};
  OptionReader part("psa", parse_option_text("cap=" + text, "psa"));
  const std::vector<double> t = part.numbers("cap", {}, 3, {.min = -1, .max = 1}, "");
  return std::array<double, 3>{t[0], t[1], t[2]};
}

int64_t read_block(OptionReader& reader, const std::string& name, int64_t multiple, const std::string& sentence) {
  const int64_t size =
      reader.integer(name, 128, {.min = static_cast<double>(multiple), .max = kLargestBlock}, sentence);
  if (size % multiple != 0) reader.fail(name, fmt::format("expected a multiple of {}, found {}", multiple, size));
  return size;
}

std::unique_ptr<AttentionPattern> make_psa(OptionReader& reader) {
  PsaOptions options;
  options.levels.is_quota = reader.choice("rule", "cumulative", {"cumulative", "quota"},
                                          "ends are shares of the importance, or of the blocks") == "quota";
  const std::vector<double> ends = reader.numbers("ends", {0.5, 0.6, 0.7, 0.8}, 4, {.min = 0, .max = 1},
                                                  "where the blocks read in full, pooled by 2, 4 and 8 end");
  if (!std::is_sorted(ends.begin(), ends.end())) reader.fail("ends", "expected numbers that do not fall");
  std::copy(ends.begin(), ends.end(), options.levels.ends.begin());
  options.is_reordered = reader.choice("reorder", "gilbert", {"gilbert", "none"},
                                       "tokens along a space-filling curve, or as they come") == "gilbert";
  options.cap = read_cap(reader);
  options.is_softmax = reader.choice("score", "rowmax", {"rowmax", "softmax"},
                                     "importance relative to a query's largest score, or its softmax") == "softmax";
  const std::string sample =
      reader.choice("sample", "random", {"random", "strided", "given"}, "which quarter of a block's tokens is scored");
  options.sampling = sample == "random"    ? Sampling::kRandom
                     : sample == "strided" ? Sampling::kStrided
                                           : Sampling::kGiven;
  options.replicates_tail =
      reader.choice("tail", "exact", {"exact", "replicate"},
                    "a short last block pooled over its tokens, or over copies of its last") == "replicate";
  options.block_size = read_block(reader, "block_size", kPooledMost, "tokens of a key block");
  options.query_block = read_block(reader, "query_block", kSampled, "tokens of a query block");
  if (reader.flag("parity_rounding", false, "numbers of blocks of a level as the source's kernel needs them")) {
    if (options.block_size < 32) reader.fail("parity_rounding", "needs a block_size of at least 32");
    options.levels.multiples = parity_multiples(options.block_size);
  }
  return std::make_unique<PsaPattern>(options);
}

}  // namespace

PatternInfo psa_pattern_info() {
  const std::string quota = "rule=quota,cap=off,";
  return {.name = "psa",
          .sentence = "important key blocks in full, others pooled by 2, 4 or 8, the rest not at all",
          .source = "PSA, arXiv 2512.04025",
          .dense_fraction = 0.3,
          .presets =
              {
                  {"wan_1_3b", "ends=0.5/0.6/0.7/0.8", "Wan2.1 1.3B balanced, 1280x720x69, public code"},
                  {"wan_1_3b_topk", quota + "ends=0.05/0.1/0.15/0.25,block_size=32", "Wan2.1 1.3B topk, public code"},
                  {"wan_1_3b_4step", quota + "ends=0.05/0.1/0.1/0.3,dense_steps=0",
                   "Wan2.1 1.3B with the 4-step LoRA, 832x480x81, dev branch of the public code"},
                  {"wan_14b", "ends=0.4/0.5/0.6/0.8,cap=off", "Wan2.1 14B balanced, 1280x720x69, public code"},
                  {"wan22_a14b", "ends=0.5/0.6/0.6/0.8,cap=off,block_size=32",
                   "Wan2.2 A14B balanced, 1280x768x69, public code"},
                  {"wan22_ti2v_5b", "ends=0.6/0.7/0.7/0.8,cap=off,block_size=32",
                   "Wan2.2 TI2V 5B balanced, 1280x704x121, public code"},
                  {"cogvideox15_5b", quota + "ends=0.1/0.15/0.15/0.35,block_size=32",
                   "CogVideoX1.5 5B, 1360x768x81, public code"},
                  {"cogvideox_5b", quota + "ends=0.1/0.15/0.15/0.35,reorder=none", "balanced, 720x480x49, public code"},
                  {"cogvideox_5b_4step", quota + "ends=0.05/0.15/0.25/0.5,reorder=none,dense_steps=0",
                   "the 4-step LoRA, public code"},
                  {"hunyuan_video", "ends=0.4/0.5/0.6/0.8,cap=off,block_size=64",
                   "HunyuanVideo: none published, from Wan2.1 14B"},
              },
          .make = make_psa};
}

}  // namespace strobe::attention
