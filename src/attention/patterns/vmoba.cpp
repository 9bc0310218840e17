// VMoBA: each query token attends to its own key block and to the blocks whose mean key it resembles most.
//
// Source   "VMoBA: Mixture-of-Block Attention for Video Diffusion Models", arXiv 2506.23858, and its public code, which
//          wins where they differ: the own block always counts, similarity is the plain product with the mean key.
//          Blocks are runs of frames, windows over all frames and boxes in turn over the layers.
// Differs  boxes at the borders of the grid may be smaller; a query for which nothing else is chosen reads its own
//          block (the public code turns dense when that holds for all). Text (the source has none) is one block that
//          every query reads and whose queries read everything.
// Input    q and k, video part; means and gates in float32.
// Output   a row for each query token, columns of unequal length, in block order.
// Cost     C D products a query and head, and a selection linear in C; the gates of as many heads as fit kGateBytes,
//          of all heads where the pool spans them.
// Errors   ShapeError where a gate is not finite.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/torch.h"
// After the precompiled header.
#include "attention/pattern.h"
#include "attention/patterns/vmoba_selection.h"
#include "attention/text_blocks.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

constexpr int64_t kGateBytes = int64_t{256} << 20;

enum class Partition { kRuns, kWindows, kBoxes };  // 1d, 2d, 3d

struct VmobaRule {
  std::optional<Partition> partition;  // none: in turn over the layers
  double run_frames = 3;
  std::vector<int64_t> window;  // rows, columns
  std::vector<int64_t> box;     // frames, rows, columns
  std::vector<int64_t> topk;    // by partition
  GateRule gates;
};

// [H, C, D] float32: means of k [H, S, D] over each block. Blocks of equal length that follow each other go together.
at::Tensor block_means(const at::Tensor& k, const std::vector<int32_t>& offsets) {
  std::vector<at::Tensor> means;
  for (size_t first = 0; first + 1 < offsets.size();) {
    const int32_t length = offsets[first + 1] - offsets[first];
    size_t end = first + 1;
    while (end + 1 < offsets.size() && offsets[end + 1] - offsets[end] == length) ++end;
    const auto blocks = static_cast<int64_t>(end - first);
    means.push_back(
        k.narrow(1, offsets[first], blocks * length).unflatten(1, {blocks, length}).mean(2, false, at::kFloat));
    first = end;
  }
  return at::cat(means, 1);
}

// [H, C, S] float32 on the CPU, the axis that the pool's selection passes last innermost.
at::Tensor gates_of(const at::Tensor& q, const at::Tensor& means, GatePool pool) {
  const bool is_local = pool == GatePool::kLocal;
  const at::Tensor queries = q.to(at::kFloat);
  const at::Tensor gates =
      (is_local ? at::matmul(queries, means.transpose(1, 2)) : at::matmul(means, queries.transpose(1, 2))).cpu();
  const auto limits = at::aminmax(gates);
  const auto low = std::get<0>(limits).item<float>(), high = std::get<1>(limits).item<float>();
  STROBE_CHECK(std::isfinite(high - low), "vmoba: gates from {} to {}: q or k holds inf or nan", low, high);
  return is_local ? gates.transpose(1, 2) : gates;
}

class VmobaPattern final : public AttentionPattern {
 public:
  explicit VmobaPattern(VmobaRule rule) : rule_(std::move(rule)) {}

  std::string name() const override { return "vmoba"; }
  PlanDependence dependence() const override { return {.on_tensors = true, .on_layer = true}; }
  PatternOrders order(const AttentionSite& site) const override {
    const auto order = tiles(site).order;
    return {.q = order, .k = order};
  }

  AttentionPlan plan(const PatternCall& call) const override {
    const TokenGrid& grid = call.site.grid;
    const std::vector<int32_t> blocks = tiles(call.site).offsets;
    const auto num_blocks = static_cast<int64_t>(blocks.size()) - 1;
    std::vector<int32_t> tokens(static_cast<size_t>(grid.tokens()) + 1);
    std::iota(tokens.begin(), tokens.end(), 0);
    std::vector<int32_t> keys = with_text_blocks(blocks, grid.text_tokens, std::max<int64_t>(1, grid.text_tokens));
    GateRule gates = rule_.gates;
    gates.topk = rule_.topk[static_cast<size_t>(partition_at(call.site.layer))];
    if (num_blocks == 1 || (gates.is_threshold ? gates.tau >= 1 : gates.topk >= num_blocks)) {
      return plan_of(BlockLayout::full(std::move(tokens), std::move(keys)), call.site);
    }
    STROBE_CHECK(call.q.dim() == 4 && call.q.size(0) == 1 && call.q.size(2) == grid.tokens(),
                 "vmoba: {} queries for a grid of {} tokens", call.q.size(2), grid.tokens());
    BlockLayout layout(call.q.size(1), std::move(tokens), std::move(keys));
    select(call, blocks, gates, layout);
    if (grid.text_tokens > 0) keep_text(layout, grid.video_tokens(), num_blocks);
    return plan_of(std::move(layout), call.site);
  }
  int64_t order_kind(const AttentionSite& site) const override {
    return static_cast<int64_t>(partition_at(site.layer));
  }
  // Of blocks of one length; a threshold keeps at most its share of what is not the own block, and one.
  std::optional<NominalDensity> nominal_density(const AttentionSite& site, int64_t) const override {
    const double blocks = static_cast<double>(tiles(site).offsets.size()) - 1;
    if (rule_.gates.is_threshold) {
      return NominalDensity{.density = std::min(1.0, (1 + std::max(1.0, rule_.gates.tau * (blocks - 1))) / blocks),
                            .is_bound = true};
    }
    const auto topk = static_cast<double>(rule_.topk[static_cast<size_t>(partition_at(site.layer))]);
    return NominalDensity{.density = std::min(1.0, topk / blocks)};
  }

 private:
  Partition partition_at(int layer) const { return rule_.partition.value_or(static_cast<Partition>(layer % 3)); }

  TiledOrder tiles(const AttentionSite& site) const {
    const TokenGrid& grid = site.grid;
    STROBE_CHECK(grid.video_tokens() >= 1, "vmoba: a grid of {}x{}x{} patches", grid.frames, grid.rows, grid.cols);
    switch (partition_at(site.layer)) {
      case Partition::kRuns: {
        const double tokens = rule_.run_frames * static_cast<double>(grid.rows) * static_cast<double>(grid.cols);
        return run_order(grid, std::max<int64_t>(1, static_cast<int64_t>(tokens)));
      }
      case Partition::kWindows:
        return tile_order(grid, grid.frames, rule_.window[0], rule_.window[1]);
      case Partition::kBoxes:
        break;
    }
    return tile_order(grid, rule_.box[0], rule_.box[1], rule_.box[2]);
  }

  static void select(const PatternCall& call, const std::vector<int32_t>& blocks, const GateRule& gates,
                     BlockLayout& layout) {
    const int64_t heads = call.q.size(1), queries = blocks.back(), num_blocks = static_cast<int64_t>(blocks.size()) - 1;
    const bool spans_heads = gates.pool == GatePool::kBlock || gates.pool == GatePool::kOverall;
    const int64_t fitting = kGateBytes / (num_blocks * queries * static_cast<int64_t>(sizeof(float)));
    const int64_t heads_at_once = spans_heads ? heads : std::clamp<int64_t>(fitting, 1, heads);
    const at::Tensor q = in_order(call.q, call.orders.q)[0].narrow(1, 0, queries);
    const at::Tensor k = in_order(call.k, call.orders.k)[0].narrow(1, 0, queries);
    for (int64_t first = 0; first < heads; first += heads_at_once) {
      const int64_t count = std::min(heads_at_once, heads - first);
      const at::Tensor means = block_means(k.narrow(0, first, count), blocks);
      select_by_gates(gates_of(q.narrow(0, first, count), means, gates.pool), blocks, gates, first, layout);
    }
  }

  VmobaRule rule_;
};

constexpr double kLargestSide = 1e6;

void read_blocks(OptionReader& options, VmobaRule& rule) {
  const std::vector<std::string> partitions = {"1d", "2d", "3d"};
  const std::string partition = options.choice("partition", "recurrent", {"recurrent", "1d", "2d", "3d"},
                                               "blocks of frames, windows, boxes; recurrent: in turn over the layers");
  for (size_t i = 0; i < partitions.size(); ++i) {
    if (partition == partitions[i]) rule.partition = static_cast<Partition>(i);
  }
  rule.run_frames = options.number("chunk_1d", 3, {.min = 1e-6, .max = kLargestSide},
                                   "frames of a 1d block; of a fraction, whole tokens");
  rule.window = options.integers("chunk_2d", {5, 13}, 2, {.min = 1, .max = kLargestSide},
                                 "rows/columns of a 2d block, which spans all frames");
  rule.box =
      options.integers("chunk_3d", {7, 5, 13}, 3, {.min = 1, .max = kLargestSide}, "frames/rows/columns of a 3d block");
  for (const char* fixed : {"block_size", "query_block"}) {
    const auto size = options.optional_integer(fixed, {.min = 1, .max = kLargestSide},
                                               "not for this method: see chunk_1d, chunk_2d and chunk_3d");
    if (size) options.fail(fixed, "rows are single tokens and blocks are given by chunk_1d, chunk_2d and chunk_3d");
  }
}

std::unique_ptr<AttentionPattern> make_vmoba(OptionReader& options) {
  VmobaRule rule;
  read_blocks(options, rule);
  rule.gates.is_threshold =
      options.choice("mode", "topk", {"topk", "threshold"}, "how many blocks a query reads") == "threshold";
  // The source trains with thresholds over a head and runs untuned models with the best blocks of each query.
  const std::string pool =
      options.choice("pool", rule.gates.is_threshold ? "global" : "local", {"local", "global", "block", "overall"},
                     "what competes: the blocks of a query and head, a head, the queries of a block, everything");
  rule.gates.pool = pool == "local"    ? GatePool::kLocal
                    : pool == "global" ? GatePool::kGlobal
                    : pool == "block"  ? GatePool::kBlock
                                       : GatePool::kOverall;
  if (!rule.gates.is_threshold && rule.gates.pool == GatePool::kBlock) {
    options.fail("pool", "block: only with mode=threshold");
  }
  // The source prints 2 for 1d, but its costs and the configurations of its port need 3.
  rule.topk = options.integers("topk", {3, 6, 18}, 0, {.min = 1, .max = kLargestSide},
                               "blocks of a query, its own included: one number, or those of 1d/2d/3d");
  if (rule.topk.size() == 1) rule.topk.resize(3, rule.topk.front());
  if (rule.topk.size() != 3) options.fail("topk", fmt::format("expected 1 or 3 numbers, found {}", rule.topk.size()));
  rule.gates.tau = options.number("tau", 0.25, {.min = 0, .max = 1},
                                  "mode=threshold: share of the normalised gates that a group's blocks reach");
  return std::make_unique<VmobaPattern>(std::move(rule));
}

}  // namespace

PatternInfo vmoba_pattern_info() {
  return {
      .name = "vmoba",
      .sentence = "per token, its own block and those whose mean key is most similar",
      .source = "arXiv 2506.23858",
      .dense_fraction = 0.25,  // untuned; presets of tuned weights say 0
      .presets = {{"wan_1_3b_480p", "chunk_1d=3,chunk_2d=5/13,chunk_3d=7/5/13,topk=3/6/18",
                   "untuned, 81 frames of 480x832 (paper)"},
                  {"wan_1_3b_720p", "chunk_1d=3,chunk_2d=9/10,chunk_3d=7/15/20,topk=3/10/9",
                   "untuned, 81 frames of 720x1280 (paper)"},
                  {"tuned_93f_576p", "mode=threshold,tau=0.25,chunk_1d=3,chunk_2d=6/8,chunk_3d=8/12/8,dense_steps=0",
                   "weights tuned to it, 93 frames of 576x1024 (paper)"},
                  {"tuned_141f_480p",
                   "mode=threshold,tau=0.25,chunk_1d=3,chunk_2d=5/13,chunk_3d=12/10/13,dense_steps=0",
                   "weights tuned to it, 141 frames of 480x832 (paper)"},
                  {"fastvideo_448p", "chunk_1d=2,chunk_2d=4/13,chunk_3d=4/4/13,topk=2/6/18",
                   "untuned, 77 frames of 448x832 (FastVideo)"},
                  {"fastvideo_480p",
                   "mode=threshold,pool=local,tau=0.25,chunk_1d=2,chunk_2d=3/4,chunk_3d=4/6/4,topk=3/20/15",
                   "untuned, 77 frames of 480x832 (FastVideo)"}},
      .make = make_vmoba};
}

}  // namespace strobe::attention
