// SparseD: the first steps are dense; the last of them chooses by exact softmax mass which key blocks every query block
// reads, the same share in each group of keys, and the choice stays to the end.
//
// Source    "SparseD: Sparse Attention for Diffusion Language Models", arXiv 2509.24014, and its code, github
//           INV-WZQ/SparseD.
// Differs   one softmax and a quota for each group (renorm_groups: as the code); skip * steps dense steps, rounded up
//           (parity_code_schedule: as the code, one or two more); text blocks are kept beyond the quota, text rows keep
//           every block; blocks of hidden keys alone are never kept.
// State     the layout, the step that built it.
// Cost      the building step: half a dense call more.
#include "attention/pattern.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/patterns/plan_state.h"
#include "attention/selection.h"
#include "attention/text_blocks.h"
#include "core/error.h"
#include "core/parallel.h"

namespace strobe::attention {
namespace {

constexpr double kLargestBlock = 4096;
constexpr double kProductSlack = 1e-9;     // 0.3 * 10 is 3 on every machine
constexpr int64_t kMassOfCall = 64 << 20;  // 256 MB of float32
constexpr int64_t kRowsOfTask = 16;

struct SparsedOptions {
  double keep = 0.3;
  double skip = 0.2;
  std::vector<int64_t> groups;  // first tokens; empty: one group
  bool is_by_mass = false;
  double theta = 0.99;
  bool renorms_groups = false;
  bool has_code_schedule = false;
  bool scales_by_heads = false;
  std::vector<int64_t> rebuild_steps;
  int64_t block_size = 128;
  int64_t query_block = 128;
};

// The blocks of a group that compete: no text, not hidden.
using Candidates = std::vector<int32_t>;

struct KeyGroup {
  BlockRange blocks;
  Candidates candidates;
};

struct BlockSets {
  std::vector<KeyGroup> groups;
  std::vector<bool> is_hidden;  // [K]
  BlockRange video_rows;
  BlockRange video_cols;
};

class SparsedPattern final : public AttentionPattern {
 public:
  explicit SparsedPattern(const SparsedOptions& options) : options_(options) {}
  std::string name() const override { return "sparsed"; }
  PlanDependence dependence() const override { return {.on_tensors = true, .on_state = true}; }
  AttentionPlan plan(const PatternCall& call) const override;
  LayoutPtr observe(const PatternCall& call, const at::Tensor& lse) const override;
  std::string check_run(const AttentionSite& site) const override {
    check_groups(site.grid.tokens());
    const double skipped = options_.skip * static_cast<double>(site.steps);
    if (options_.has_code_schedule || site.step > 0 || site.steps < 2 || skipped >= 1 - kProductSlack) return {};
    return fmt::format(
        "sparsed: skip={} of {} steps is less than one step: the blocks are chosen in the first, noisiest one; a skip "
        "of {:.3g} makes two steps dense",
        options_.skip, site.steps, std::min(1.0, 2.0 / site.steps));
  }
  int64_t state_bytes(const TokenGrid& grid, int64_t heads) const override {
    return layout_bytes(grid.tokens(), heads, options_.query_block, options_.block_size) + 8;
  }
  std::optional<NominalDensity> nominal_density(const AttentionSite& site, int64_t) const override {
    if (site.step < dense_steps(site.steps)) return NominalDensity{.density = 1};
    if (options_.is_by_mass) return {};
    const int64_t blocks = (site.grid.tokens() + options_.block_size - 1) / options_.block_size;
    return NominalDensity{.density = static_cast<double>(kept_of(blocks)) / static_cast<double>(blocks)};
  }

 private:
  int64_t dense_steps(int64_t steps) const;
  int64_t kept_of(int64_t blocks) const;
  void check_groups(int64_t tokens) const;
  BlockSets block_sets(const PatternCall& call, const BlockOffsets& offsets) const;
  std::vector<at::Tensor> masses(const PatternCall& call, const ScoreInput& input, const at::Tensor& lse,
                                 const BlockOffsets& offsets, const BlockSets& sets) const;
  std::vector<int32_t> best_of_group(const Candidates& candidates, const float* mass) const;
  std::vector<int32_t> best_of_row(const BlockSets& sets, const std::vector<const float*>& masses) const;
  LayoutPtr build(const PatternCall& call, at::Tensor lse) const;

  SparsedOptions options_;
};

int64_t SparsedPattern::dense_steps(int64_t steps) const {
  const double skipped = options_.skip * static_cast<double>(steps);
  if (options_.has_code_schedule) return static_cast<int64_t>(skipped) + 2;
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(skipped - kProductSlack)));
}

int64_t SparsedPattern::kept_of(int64_t blocks) const {
  const auto share = static_cast<int64_t>(options_.keep * static_cast<double>(blocks) + kProductSlack);
  return std::min(blocks, share + 1);
}

void SparsedPattern::check_groups(int64_t tokens) const {
  if (options_.groups.empty() || options_.groups.back() < tokens) return;
  throw ConfigError(fmt::format("sparsed: groups: token {} is beyond the {} tokens", options_.groups.back(), tokens));
}

BlockSets SparsedPattern::block_sets(const PatternCall& call, const BlockOffsets& offsets) const {
  const auto blocks = static_cast<int64_t>(offsets.key.size()) - 1;
  BlockSets sets{.is_hidden = std::vector<bool>(static_cast<size_t>(blocks)),
                 .video_rows = video_blocks(call.site.grid, /*is_reordered=*/false, offsets.query),
                 .video_cols = video_blocks(call.site.grid, /*is_reordered=*/false, offsets.key)};
  if (call.key_bias.defined()) {
    const at::Tensor bias = call.key_bias[0].to(at::kFloat).cpu().contiguous();
    const float* const of_key = bias.const_data_ptr<float>();
    for (size_t j = 0; j < sets.is_hidden.size(); ++j) {
      sets.is_hidden[j] = std::all_of(of_key + offsets.key[j], of_key + offsets.key[j + 1],
                                      [](float b) { return b == -std::numeric_limits<float>::infinity(); });
    }
  }
  std::vector<int64_t> tokens = options_.groups;
  if (tokens.empty()) tokens = {0};
  check_groups(offsets.key.back());
  // A block on a border belongs to the group before it, but a group that begins in the last block has that one.
  std::vector<int64_t> first;
  first.reserve(tokens.size() + 1);
  for (const int64_t token : tokens) {
    first.push_back(std::min(blocks - 1, (token + options_.block_size - 1) / options_.block_size));
  }
  first.push_back(blocks);
  for (size_t g = 0; g + 1 < first.size(); ++g) {
    KeyGroup group{.blocks = {.first = first[g], .end = first[g + 1]}, .candidates = {}};
    for (int64_t j = group.blocks.first; j < group.blocks.end; ++j) {
      if (sets.video_cols.contains(j) && !sets.is_hidden[static_cast<size_t>(j)]) {
        group.candidates.push_back(static_cast<int32_t>(j));
      }
    }
    sets.groups.push_back(std::move(group));
  }
  return sets;
}

// [h, M, K] float32 on the CPU for each group: of one softmax, or each later group's of a softmax over its keys alone.
std::vector<at::Tensor> SparsedPattern::masses(const PatternCall& call, const ScoreInput& input, const at::Tensor& lse,
                                               const BlockOffsets& offsets, const BlockSets& sets) const {
  const auto mass_of = [&](const ScoreInput& scored, const at::Tensor& denominators, const std::vector<int32_t>& keys) {
    return call.scorer.block_mass(scored, denominators, offsets.query, keys, /*wants_row_sum=*/false)
        .mass[0]
        .cpu()
        .contiguous();
  };
  std::vector<at::Tensor> masses(sets.groups.size(), mass_of(input, lse, offsets.key));
  for (size_t g = 1; options_.renorms_groups && g < sets.groups.size(); ++g) {
    const BlockRange& blocks = sets.groups[g].blocks;
    if (blocks.size() == 0) continue;
    std::vector<int32_t> keys(offsets.key.begin() + blocks.first, offsets.key.begin() + blocks.end + 1);
    const int32_t first = keys.front();
    for (int32_t& offset : keys) offset -= first;
    ScoreInput part = input;
    part.k = input.k.narrow(2, first, keys.back());
    if (input.key_bias.defined()) part.key_bias = input.key_bias.narrow(1, first, keys.back());
    at::Tensor whole = at::zeros_like(masses[0]);
    whole.narrow(2, blocks.first, blocks.size()).copy_(mass_of(part, call.scorer.row_lse(part), keys));
    masses[g] = whole;
  }
  return masses;
}

std::vector<int32_t> SparsedPattern::best_of_group(const Candidates& candidates, const float* mass) const {
  std::vector<float> scores;
  for (const int32_t block : candidates) scores.push_back(mass[block]);
  const auto blocks = static_cast<int64_t>(scores.size());
  std::vector<int32_t> best;
  if (options_.is_by_mass && options_.theta < 1) {
    best = best_indices(scores.data(), blocks, blocks);
    std::vector<float> sorted;
    double total = 0;
    for (const int32_t i : best) total += sorted.emplace_back(scores[static_cast<size_t>(i)]);
    best.resize(static_cast<size_t>(blocks == 0 ? 0 : prefix_reaching(sorted.data(), blocks, total, options_.theta)));
  } else {
    best = best_indices(scores.data(), blocks, options_.is_by_mass ? blocks : kept_of(blocks));
  }
  for (int32_t& i : best) i = candidates[static_cast<size_t>(i)];
  return best;
}

std::vector<int32_t> SparsedPattern::best_of_row(const BlockSets& sets, const std::vector<const float*>& masses) const {
  std::vector<int32_t> kept;
  for (size_t g = 0; g < sets.groups.size(); ++g) {
    const KeyGroup& group = sets.groups[g];
    if (g == 0 && options_.renorms_groups) {
      // As the public code: the best of all blocks, without those of later groups.
      Candidates all;
      for (const KeyGroup& any : sets.groups) all.insert(all.end(), any.candidates.begin(), any.candidates.end());
      for (const int32_t block : best_of_group(all, masses[0])) {
        if (group.blocks.contains(block)) kept.push_back(block);
      }
      continue;
    }
    const std::vector<int32_t> best = best_of_group(group.candidates, masses[g]);
    kept.insert(kept.end(), best.begin(), best.end());
  }
  return kept;
}

LayoutPtr SparsedPattern::build(const PatternCall& call, at::Tensor lse) const {
  const BlockOffsets offsets(call, options_.query_block, options_.block_size);
  const BlockSets sets = block_sets(call, offsets);
  ScoreInput input{.q = call.q, .k = call.k, .key_bias = call.key_bias, .scale = 0};
  const int64_t heads = call.q.size(1);
  if (options_.scales_by_heads) input.scale = 1.0 / std::sqrt(static_cast<double>(heads));
  if (options_.scales_by_heads || !lse.defined()) lse = call.scorer.row_lse(input);
  auto layout = std::make_shared<BlockLayout>(heads, offsets.query, offsets.key);
  const int64_t query_blocks = layout->query_blocks(), key_blocks = layout->key_blocks();

  const int64_t heads_of_call = std::clamp<int64_t>(kMassOfCall / (query_blocks * key_blocks), 1, heads);
  for (int64_t h = 0; h < heads; h += heads_of_call) {
    const int64_t count = std::min(heads_of_call, heads - h);
    ScoreInput part = input;
    part.q = input.q.narrow(1, h, count), part.k = input.k.narrow(1, h, count);
    const std::vector<at::Tensor> found = masses(call, part, lse.narrow(1, h, count), offsets, sets);
    parallel_for(0, count * query_blocks, kRowsOfTask, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = h + i / query_blocks, row = i % query_blocks;
        std::vector<const float*> of_row(found.size());
        for (size_t g = 0; g < found.size(); ++g) of_row[g] = found[g].const_data_ptr<float>() + i * key_blocks;
        if (sets.video_rows.contains(row)) keep_blocks(*layout, head, row, 0, best_of_row(sets, of_row));
        for (int64_t j = 0; j < key_blocks; ++j) {
          const bool is_text_pair = !sets.video_rows.contains(row) || !sets.video_cols.contains(j);
          if (is_text_pair && !sets.is_hidden[static_cast<size_t>(j)]) layout->set(head, row, j);
        }
      }
    });
  }
  return layout;
}

AttentionPlan SparsedPattern::plan(const PatternCall& call) const {
  const BlockOffsets offsets(call, options_.query_block, options_.block_size);
  if (!holds_layout_for(call.state, call.q.size(1), offsets)) call.state = {};
  const int64_t step = call.site.step, first_steps = dense_steps(call.site.steps);
  const bool has_layout = call.state.layout != nullptr;
  const bool is_rebuilding = has_layout && is_due(options_.rebuild_steps, call.state, step);
  AttentionPlan plan;
  if (call.site.plans_always) {
    if (!has_layout || is_rebuilding) remember(call.state, build(call, {}), step);
    plan.layout = call.state.layout;
  } else if (first_steps >= call.site.steps) {
    plan.note = fmt::format("first {} steps dense, and no others", first_steps);
  } else if (step < first_steps) {
    plan.wants_lse = step == first_steps - 1 && !has_layout;
    plan.note = fmt::format("first {} steps dense", first_steps);
  } else if (!has_layout || is_rebuilding) {
    plan.wants_lse = true;
    plan.note = "builds its layout";
  } else if (std::find(options_.rebuild_steps.begin(), options_.rebuild_steps.end(), step) !=
             options_.rebuild_steps.end()) {
    plan.note = "builds its layout";  // another evaluation of the step
  } else {
    plan.layout = call.state.layout;
  }
  return plan;
}

LayoutPtr SparsedPattern::observe(const PatternCall& call, const at::Tensor& lse) const {
  remember(call.state, build(call, lse), call.site.step);
  return call.state.layout;
}

void read_groups(OptionReader& reader, SparsedOptions& options) {
  options.groups = reader.integers("groups", {}, 0, {.min = 0, .max = 1e9},
                                   "first token of each group of keys that has its own quota; default one group");
  if (!options.groups.empty() && options.groups[0] != 0) reader.fail("groups", "expected the first to be 0");
  if (std::adjacent_find(options.groups.begin(), options.groups.end(), std::greater_equal<>()) !=
      options.groups.end()) {
    reader.fail("groups", "expected numbers that rise");
  }
  options.renorms_groups = reader.flag(
      "renorm_groups", false, "groups ranked as the public code does: later ones by a softmax over their keys");
  if (options.renorms_groups && options.is_by_mass) reader.fail("renorm_groups", "goes with rule=ratio alone");
}

std::unique_ptr<AttentionPattern> make_sparsed(OptionReader& reader) {
  SparsedOptions options;
  options.keep =
      reader.number("keep", 0.3, {.min = 0, .max = 1}, "share of a group's blocks that a row keeps, and one");
  options.skip =
      reader.number("skip", 0.2, {.min = 0, .max = 1}, "share of the steps that are dense, at least one step");
  options.is_by_mass = reader.choice("rule", "ratio", {"ratio", "mass"},
                                     "rows keep a share of the blocks, or as many as hold theta of the mass") == "mass";
  options.theta =
      reader.number("theta", 0.99, {.min = 0, .max = 1}, "rule=mass: share of a group's mass that a row keeps");
  read_groups(reader, options);
  options.has_code_schedule =
      reader.flag("parity_code_schedule", false, "as many dense steps as the public code: int(skip * steps) + 2");
  options.scales_by_heads =
      reader.choice("build_scale", "head_dim", {"head_dim", "heads"},
                    "scores are ranked times 1/sqrt of this; heads: as the public code of LLaDA") == "heads";
  options.rebuild_steps =
      reader.integers("rebuild_steps", {}, 0, {.min = 0, .max = 1e6}, "later dense steps that build the layout anew");
  const OptionRange sizes{.min = 1, .max = kLargestBlock};
  options.block_size = reader.integer("block_size", 128, sizes, "tokens of a key block");
  options.query_block = reader.optional_integer("query_block", sizes, "tokens of a query block; default as block_size")
                            .value_or(options.block_size);
  return std::make_unique<SparsedPattern>(options);
}

}  // namespace

PatternInfo sparsed_pattern_info() {
  // Nothing is published for video: starting points.
  const std::string blocks = ",block_size=64,query_block=128";
  return {.name = "sparsed",
          .sentence = "blocks of largest exact softmax mass, chosen once after the dense steps",
          .source = "SparseD, arXiv 2509.24014",
          .presets =
              {
                  {"wan_14b", "keep=0.3" + blocks, "Wan2.1 14B 720p: a starting point, none published"},
                  {"wan_1_3b", "keep=0.45" + blocks, "Wan2.1 1.3B 480p: a starting point, none published"},
                  {"wan22_a14b", "keep=0.3" + blocks, "Wan2.2 A14B 720p: a starting point, none published"},
                  {"wan22_ti2v_5b", "keep=0.4" + blocks, "Wan2.2 TI2V 5B: a starting point, none published"},
                  {"hunyuan_video", "keep=0.25" + blocks, "HunyuanVideo 720p: a starting point, none published"},
                  {"cogvideox_5b", "keep=0.35" + blocks, "a starting point, none published"},
                  {"cogvideox15_5b", "keep=0.35" + blocks, "CogVideoX1.5 5B: a starting point, none published"},
                  {"distilled", "keep=0.5" + blocks, "up to 8 steps: a starting point, little to gain"},
                  {"text_long", "keep=0.3,block_size=128", "the paper's long contexts"},
                  {"text_short", "keep=0.5,block_size=32", "the paper's short contexts"},
              },
          .make = make_sparsed};
}

}  // namespace strobe::attention
