// The key blocks of largest exact softmax mass, by head and query block, at every call: what a choice of blocks can reach,
// at the cost of one and a half dense products of queries and keys. For comparison, not for speed.
//
// Order     tokens as they come; text blocks are kept beyond the budget, text rows keep every block.
#include "attention/pattern.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/patterns/plan_state.h"
#include "attention/selection.h"
#include "attention/text_blocks.h"
#include "core/parallel.h"

namespace strobe::attention {
namespace {

constexpr double kLargestBlock = 4096;
constexpr int64_t kRowsOfTask = 16;

class TopkPattern final : public AttentionPattern {
 public:
  TopkPattern(double keep, int64_t query_block, int64_t block_size)
      : keep_(keep), query_block_(query_block), block_size_(block_size) {}
  std::string name() const override { return "topk"; }
  PlanDependence dependence() const override { return {.on_tensors = true}; }

  AttentionPlan plan(const PatternCall& call) const override {
    const BlockOffsets offsets(call, query_block_, block_size_);
    const ScoreInput input{.q = call.q, .k = call.k, .key_bias = call.key_bias, .scale = 0};
    const BlockMass found =
        call.scorer.block_mass(input, call.scorer.row_lse(input), offsets.query, offsets.key, /*wants_row_sum=*/false);
    const at::Tensor masses = found.mass[0].cpu().contiguous();
    auto layout = std::make_shared<BlockLayout>(call.q.size(1), offsets.query, offsets.key);
    const int64_t query_blocks = layout->query_blocks(), key_blocks = layout->key_blocks();
    const BlockRange rows = video_blocks(call.site.grid, /*is_reordered=*/false, offsets.query);
    const BlockRange cols = video_blocks(call.site.grid, /*is_reordered=*/false, offsets.key);
    const auto count =
        std::max<int64_t>(1, static_cast<int64_t>(std::floor(keep_ * static_cast<double>(key_blocks) + 0.5)));
    const float* const mass = masses.const_data_ptr<float>();
    parallel_for(0, layout->heads() * query_blocks, kRowsOfTask, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / query_blocks, row = i % query_blocks;
        if (!rows.contains(row)) {
          layout->set_row(head, row);
          continue;
        }
        keep_blocks(*layout, head, row, cols.first,
                    best_indices(mass + i * key_blocks + cols.first, cols.size(), count));
        layout->set_range(head, row, 0, cols.first);
        layout->set_range(head, row, cols.end, key_blocks);
      }
    });
    AttentionPlan plan;
    plan.layout = std::move(layout);
    return plan;
  }
  std::optional<NominalDensity> nominal_density(const AttentionSite& site, int64_t) const override {
    const int64_t blocks = (site.grid.tokens() + block_size_ - 1) / block_size_;
    const double count = std::max(1.0, std::floor(keep_ * static_cast<double>(blocks) + 0.5));
    return NominalDensity{.density = std::min(1.0, count / static_cast<double>(blocks))};
  }

 private:
  double keep_;
  int64_t query_block_;
  int64_t block_size_;
};

std::unique_ptr<AttentionPattern> make_topk(OptionReader& reader) {
  const double keep =
      reader.number("keep", 0.2, {.min = 0, .max = 1}, "share of the key blocks that a query block reads");
  const OptionRange sizes{.min = 1, .max = kLargestBlock};
  const int64_t block_size = reader.integer("block_size", 64, sizes, "tokens of a key block");
  const int64_t query_block =
      reader.optional_integer("query_block", sizes, "tokens of a query block; default as block_size")
          .value_or(block_size);
  return std::make_unique<TopkPattern>(keep, query_block, block_size);
}

}  // namespace

PatternInfo topk_pattern_info() {
  return {
      .name = "topk",
      .sentence = "the key blocks of largest exact softmax mass, at every call",
      .source = "a yardstick: the choice of adaspa with one budget, made anew from exact attention (arXiv 2502.21079)",
      .presets = {},
      .make = make_topk};
}

}  // namespace strobe::attention
