// AdaSpa: at a few search steps the exact softmax mass of every block says which key blocks a query block reads until the
// next one; the budget moves between the heads by how much of the mass it keeps.
//
// Source    "Training-free and Adaptive Sparse Attention for Efficient Long Video Generation", arXiv 2502.21079; no public
//           code. Steps count from 0.
// Differs   text blocks are beyond the budget; the stored log-sum-exps are brought up to date by each search.
// State     `lse` [1, H, N] float32 while a later search may use it, the layout, the step of the last search.
// Cost      the first search: a dense call and half of one more; later ones: half a dense call.
#include "attention/pattern.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/patterns/adaspa_selection.h"
#include "attention/patterns/plan_state.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

constexpr double kLargestBlock = 4096;
constexpr int64_t kFewSteps = 8;  // of a distilled model: one search, after the first step

struct AdaspaOptions {
  MassRule rule;
  std::vector<int64_t> search_steps;  // empty: by the number of steps
  bool refreshes_lse = true;
  int64_t block_size = 64;
  int64_t query_block = 64;
};

class AdaspaPattern final : public AttentionPattern {
 public:
  explicit AdaspaPattern(const AdaspaOptions& options) : options_(options) {}
  std::string name() const override { return "adaspa"; }
  PlanDependence dependence() const override { return {.on_tensors = true, .on_state = true}; }
  AttentionPlan plan(const PatternCall& call) const override;
  LayoutPtr observe(const PatternCall& call, const at::Tensor& lse) const override;
  int64_t state_bytes(const TokenGrid& grid, int64_t heads) const override {
    return grid.tokens() * heads * 4 + layout_bytes(grid.tokens(), heads, options_.query_block, options_.block_size) +
           8;
  }
  // Dense up to the first search, which is dense itself; text is not counted.
  std::optional<NominalDensity> nominal_density(const AttentionSite& site, int64_t) const override {
    const std::vector<int64_t> searches = search_steps(site.steps);
    if (searches.empty() || site.step <= searches.front()) return NominalDensity{.density = 1};
    if (options_.rule.is_by_mass) return {};
    return NominalDensity{.density = 1 - options_.rule.sparsity};
  }

 private:
  std::vector<int64_t> search_steps(int64_t steps) const;
  LayoutPtr search(const PatternCall& call, const at::Tensor& lse, at::Tensor* row_sum) const;
  void store(const PatternCall& call, LayoutPtr layout, const at::Tensor& lse) const;

  AdaspaOptions options_;
};

std::vector<int64_t> AdaspaPattern::search_steps(int64_t steps) const {
  if (!options_.search_steps.empty()) return options_.search_steps;
  if (steps == 0) return {10, 30};
  if (steps <= kFewSteps) return steps > 1 ? std::vector<int64_t>{1} : std::vector<int64_t>{};
  const auto t = static_cast<double>(steps);
  return {std::lround(0.2 * t), std::lround(0.6 * t)};
}

// Null where a mass is not finite. `row_sum`: of the weights under the lse given, for refreshing it.
LayoutPtr AdaspaPattern::search(const PatternCall& call, const at::Tensor& lse, at::Tensor* row_sum) const {
  const BlockOffsets offsets(call, options_.query_block, options_.block_size);
  const BlockMass found = call.scorer.block_mass({.q = call.q, .k = call.k, .key_bias = call.key_bias, .scale = 0}, lse,
                                                 offsets.query, offsets.key, row_sum != nullptr);
  const MassBlocks blocks{.mass = found.mass[0].cpu().contiguous(),
                          .video_rows = video_blocks(call.site.grid, false, offsets.query),
                          .video_cols = video_blocks(call.site.grid, false, offsets.key)};
  // Text rows may belong to padding, whose queries are anything; they keep every block unseen.
  const BlockRange& rows = blocks.video_rows;
  if (!at::isfinite(blocks.mass.narrow(1, rows.first, rows.size())).all().item<bool>()) return nullptr;
  auto layout = std::make_shared<BlockLayout>(call.q.size(1), offsets.query, offsets.key);
  select_by_mass(blocks, options_.rule, *layout);
  if (row_sum != nullptr) *row_sum = found.row_sum;
  return layout;
}

void AdaspaPattern::store(const PatternCall& call, LayoutPtr layout, const at::Tensor& lse) const {
  remember(call.state, std::move(layout), call.site.step);
  const std::vector<int64_t> steps = search_steps(call.site.steps);
  const bool is_needed = call.site.plans_always || (!steps.empty() && steps.back() > call.site.step);
  if (is_needed) {
    call.state.tensors["lse"] = lse.contiguous();
  } else {
    call.state.tensors.erase("lse");
  }
}

AttentionPlan AdaspaPattern::plan(const PatternCall& call) const {
  const BlockOffsets offsets(call, options_.query_block, options_.block_size);
  const std::vector<int64_t> steps = search_steps(call.site.steps);
  AttentionPlan plan;
  if (!holds_layout_for(call.state, call.q.size(1), offsets)) {
    call.state = {};
    plan.wants_lse = call.site.plans_always || (!steps.empty() && call.site.step >= steps.front());
    plan.note = plan.wants_lse ? "search step" : "before the first search step";
    return plan;
  }
  const auto lse = call.state.tensors.find("lse");
  if (!is_due(steps, call.state, call.site.step)) {
    plan.layout = call.state.layout;
  } else if (lse == call.state.tensors.end()) {
    plan.wants_lse = true;
    plan.note = "search step";
  } else {
    at::Tensor row_sum;
    LayoutPtr layout = search(call, lse->second, options_.refreshes_lse ? &row_sum : nullptr);
    if (!layout) {
      call.state = {};
      plan.note = "block masses are not finite";
      return plan;
    }
    const at::Tensor next = row_sum.defined() ? lse->second + row_sum.log() : lse->second;
    plan.layout = layout;
    store(call, std::move(layout), next);
  }
  return plan;
}

LayoutPtr AdaspaPattern::observe(const PatternCall& call, const at::Tensor& lse) const {
  LayoutPtr layout = search(call, lse, nullptr);
  call.state = {};
  if (layout) store(call, layout, lse);
  return layout;
}

std::vector<int64_t> read_steps(OptionReader& reader) {
  std::vector<int64_t> steps = reader.integers(
      "search_steps", {}, 0, {.min = 0, .max = 1e6},
      "steps that choose blocks anew, the first after dense ones; default 10/30 of 50 steps, in proportion for others");
  if (std::adjacent_find(steps.begin(), steps.end(), std::greater_equal<>()) != steps.end()) {
    reader.fail("search_steps", "expected numbers that rise");
  }
  return steps;
}

std::unique_ptr<AttentionPattern> make_adaspa(OptionReader& reader) {
  AdaspaOptions options;
  options.rule.sparsity = reader.number("sparsity", 0.8, {.min = 0, .max = 1},
                                        "share of the key blocks that a query block drops, mean over the heads");
  options.search_steps = read_steps(reader);
  options.rule.recall = reader.number("recall", 0.8, {.min = 0, .max = 1},
                                      "heads that keep more than this share of the softmax mass may drop more blocks");
  options.rule.is_by_mass =
      reader.choice("target", "ratio", {"ratio", "mass"},
                    "rows keep a number of blocks, or as many as hold theta of their mass") == "mass";
  options.rule.theta = reader.number("theta", 0.99, {.min = 0, .max = 1}, "target=mass: share of the mass to keep");
  options.refreshes_lse =
      reader.flag("refresh_lse", true, "a search updates the stored log-sum-exps for the next one, or keeps the first");
  const OptionRange sizes{.min = 1, .max = kLargestBlock};
  options.block_size = reader.integer("block_size", 64, sizes, "tokens of a key block");
  options.query_block = reader.optional_integer("query_block", sizes, "tokens of a query block; default as block_size")
                            .value_or(options.block_size);
  return std::make_unique<AdaspaPattern>(options);
}

}  // namespace

PatternInfo adaspa_pattern_info() {
  return {.name = "adaspa",
          .sentence = "blocks of largest exact softmax mass, chosen at a few steps, budgets by head",
          .source = "AdaSpa, arXiv 2502.21079",
          .presets =
              {
                  {"hunyuan_video", "sparsity=0.8", "HunyuanVideo 720p, 129 frames, the paper"},
                  {"cogvideox15_5b", "sparsity=0.8", "CogVideoX1.5 5B 720p, 161 frames, the paper"},
                  {"long_video", "sparsity=0.9,search_steps=0/30", "the paper's long clips, up to 24 s"},
                  {"wan_14b", "sparsity=0.8", "Wan2.1 14B 720p: a starting point, none published"},
                  {"wan_1_3b", "sparsity=0.7", "Wan2.1 1.3B 480p: a starting point, none published"},
                  {"wan22_a14b", "sparsity=0.8", "Wan2.2 A14B 720p: a starting point, none published"},
                  {"wan22_ti2v_5b", "sparsity=0.8", "Wan2.2 TI2V 5B 720p: a starting point, none published"},
              },
          .make = make_adaspa};
}

}  // namespace strobe::attention
