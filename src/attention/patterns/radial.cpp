// Radial attention: the further apart two frames are, the narrower the band of tokens that see each other.
//
// Source   "Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video Generation", arXiv
//          2506.19852, and its public code, which wins where they differ: widths from the power of two above the
//          frame's tokens, never below a block; whole bands, not diagonals, in far frames; a block is kept by the
//          density of its columns.
// Differs  `robust` (default) repairs what that code loses where blocks straddle frames: the last block of a frame, the
//          thirds of blocks that two frames share, neighbours in tiny frames, the diagonal. Text has blocks of its own.
//          `parity` is the public mask, in which blocks at and behind the border to the text are dense and rows may be
//          empty. Both are equal where the blocks divide the frame.
// Input    the grid: frames, and tokens of a frame in raster order, whose distance is along that line. No tensors.
// Output   one layout for all heads.
// Cost     one closed form per frame pair and kept block.
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/torch.h"
// After the precompiled header.
#include "attention/pattern.h"
#include "attention/text_blocks.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

struct RadialRule {
  int64_t block_size = 128;
  int64_t decimation = 128;
  int64_t sink_frames = 1;
  double decay_factor = 1;
  bool has_half_neighbours = false;
  bool is_parity = false;
};

struct Span {
  int64_t first = 0;
  int64_t end = 0;
};

int64_t overlap(Span a, Span b) { return std::max<int64_t>(0, std::min(a.end, b.end) - std::max(a.first, b.first)); }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t bit_length(int64_t value) { return std::bit_width(static_cast<uint64_t>(value)); }

constexpr int64_t kDropped = -1;

// Largest distance inside the frame at which tokens of frames i and j see each other, or kDropped.
int64_t half_width(const RadialRule& rule, int64_t frame_tokens, int64_t i, int64_t j) {
  if (j < rule.sink_frames) return frame_tokens;
  const int64_t distance = std::abs(i - j), octave = bit_length(distance), length_bits = bit_length(frame_tokens);
  const int64_t split = std::max<int64_t>(1, (rule.decimation << octave) >> length_bits);
  const bool is_droppable = rule.is_parity || distance > 1;
  if (is_droppable && distance % split != 0) return kDropped;
  if (distance == 0) return frame_tokens;
  if (distance == 1) return rule.has_half_neighbours ? frame_tokens / 2 : frame_tokens;
  // A power of two times the factor: exact.
  const double width = rule.decay_factor * std::ldexp(1.0, static_cast<int>(length_bits - octave));
  if (width >= static_cast<double>(frame_tokens)) return frame_tokens;
  return std::max(rule.block_size, static_cast<int64_t>(std::floor(width)));
}

// Whether more than 60 % of the columns that see a row at all see more than a third of `height` rows. `rows` and `cols`
// are the frames' tokens inside the block; a column's count is the length of an interval, so both sets are intervals.
bool is_block_kept(Span rows, Span cols, int64_t width, int64_t height) {
  const int64_t least = height / 3 + 1;
  const int64_t touched = overlap(cols, {rows.first - width, rows.end + width});
  if (std::min(rows.end - rows.first, 2 * width + 1) < least) return false;
  const int64_t well = overlap(cols, {rows.first - width + least - 1, rows.end + width - least + 1});
  return 5 * well > 3 * touched;
}

class RadialMask {
 public:
  RadialMask(const RadialRule& rule, int64_t frame_tokens, BlockLayout& layout)
      : rule_(rule), frame_tokens_(frame_tokens), layout_(layout) {}

  void add_pair(int64_t i, int64_t j) {
    const int64_t width = half_width(rule_, frame_tokens_, i, j);
    if (width == kDropped) return;
    const Span row_blocks = blocks_of(i), col_blocks = blocks_of(j);
    const int64_t row_start = i * frame_tokens_, col_start = j * frame_tokens_;
    for (int64_t a = row_blocks.first; a < row_blocks.end; ++a) {
      const Span rows = tokens_inside(a, row_start);
      const int64_t height = rule_.is_parity ? rule_.block_size : rows.end - rows.first;
      // Blocks beyond see no row at all.
      const int64_t first_col = std::max<int64_t>(0, rows.first - width);
      const int64_t end_col = std::min(frame_tokens_, rows.end + width);
      const int64_t first = std::max(col_blocks.first, (col_start + first_col) / rule_.block_size);
      const int64_t end = std::min(col_blocks.end, ceil_div(col_start + end_col, rule_.block_size));
      uint64_t* bits = layout_.row(0, a);
      for (int64_t b = first; b < end; ++b) {
        if (is_block_kept(rows, tokens_inside(b, col_start), width, height)) bits[b / 64] |= uint64_t{1} << (b % 64);
      }
    }
  }

 private:
  // The public code looks at ceil(tokens / block) blocks of a frame, so that a frame across one more loses the last.
  Span blocks_of(int64_t frame) const {
    const int64_t first = frame * frame_tokens_ / rule_.block_size;
    if (rule_.is_parity) return {first, first + ceil_div(frame_tokens_, rule_.block_size)};
    return {first, ceil_div((frame + 1) * frame_tokens_, rule_.block_size)};
  }

  Span tokens_inside(int64_t block, int64_t frame_start) const {
    const int64_t first = block * rule_.block_size - frame_start;
    return {std::max<int64_t>(0, first), std::min(frame_tokens_, first + rule_.block_size)};
  }

  const RadialRule& rule_;
  int64_t frame_tokens_;
  BlockLayout& layout_;
};

void add_frame_pairs(const RadialRule& rule, const TokenGrid& grid, BlockLayout& layout) {
  RadialMask mask(rule, grid.rows * grid.cols, layout);
  for (int64_t i = 0; i < grid.frames; ++i) {
    for (int64_t j = 0; j < grid.frames; ++j) mask.add_pair(i, j);
  }
}

BlockLayout robust_layout(const RadialRule& rule, const TokenGrid& grid) {
  std::vector<int32_t> offsets = BlockLayout::uniform_offsets(grid.video_tokens(), rule.block_size);
  const auto video_blocks = static_cast<int64_t>(offsets.size()) - 1;
  offsets = with_text_blocks(std::move(offsets), grid.text_tokens, rule.block_size);
  BlockLayout layout(1, offsets, offsets);
  add_frame_pairs(rule, grid, layout);
  for (int64_t block = 0; block < video_blocks; ++block) layout.set(0, block, block);
  keep_text(layout, video_blocks, video_blocks);
  return layout;
}

// The number of blocks is rounded up, as the ports do; the public code rounds down and loses the rest.
BlockLayout parity_layout(const RadialRule& rule, const TokenGrid& grid) {
  const std::vector<int32_t> offsets = BlockLayout::uniform_offsets(grid.tokens(), rule.block_size);
  BlockLayout layout(1, offsets, offsets);
  add_frame_pairs(rule, grid, layout);
  const int64_t border = grid.video_tokens() / rule.block_size;
  keep_text(layout, border, border);
  return layout;
}

class RadialPattern final : public AttentionPattern {
 public:
  explicit RadialPattern(const RadialRule& rule) : rule_(rule) {}

  std::string name() const override { return "radial"; }
  PlanDependence dependence() const override { return {}; }
  PatternOrders order(const AttentionSite& site) const override {
    const auto order = text_last_order(site.grid);
    return {.q = order, .k = order};
  }
  AttentionPlan plan(const PatternCall& call) const override {
    const TokenGrid& grid = call.site.grid;
    STROBE_CHECK(grid.video_tokens() >= 1, "radial: a grid of {}x{}x{} patches", grid.frames, grid.rows, grid.cols);
    return plan_of(rule_.is_parity ? parity_layout(rule_, grid) : robust_layout(rule_, grid), call.site);
  }

 private:
  RadialRule rule_;
};

std::unique_ptr<AttentionPattern> make_radial(OptionReader& options) {
  RadialRule rule;
  rule.block_size = options.integer("block_size", rule.block_size, {.min = 1, .max = 65536}, "tokens of a block");
  const auto query_block =
      options.optional_integer("query_block", {.min = 1, .max = 65536}, "tokens of a query block: block_size");
  if (query_block && *query_block != rule.block_size) {
    options.fail("query_block",
                 fmt::format("expected block_size, which is {}, found {}", rule.block_size, *query_block));
  }
  rule.decay_factor =
      options.number("decay_factor", rule.decay_factor, {.min = 0, .max = 1e6}, "of the widths between far frames");
  rule.sink_frames =
      options.integer("sink_frames", rule.sink_frames, {.min = 0, .max = 1e6}, "first frames that every query reads");
  rule.has_half_neighbours = options.choice("neighbour", "full", {"full", "half"},
                                            "what a query reads of the frames beside its own") == "half";
  rule.is_parity =
      options.choice("mode", "robust", {"robust", "parity"}, "parity: the public mask, gaps included") == "parity";
  rule.decimation = options.integer("decimation", rule.decimation, {.min = 1, .max = 65536},
                                    "frames whose band would be narrower than this are thinned out");
  return std::make_unique<RadialPattern>(rule);
}

}  // namespace

PatternInfo radial_pattern_info() {
  return {.name = "radial",
          .sentence = "bands that narrow with the distance between frames",
          .source = "arXiv 2506.19852",
          .dense_fraction = 0.25,  // 12 of 50 steps, 2 of 8, 1 of 4
          .dense_layers = 1,
          .presets = {{"wan_14b", "decay_factor=0.2,sink_frames=1,dense_layers=1",
                       "Wan2.1-14B at its usual length, also with the adapters for 8 and 4 steps (public scripts)"},
                      {"wan_1_3b", "decay_factor=0.2,sink_frames=1,dense_layers=1",
                       "as wan_14b: none is published for the small model"},
                      {"wan22_a14b", "block_size=64,decay_factor=0.8,sink_frames=1,dense_steps=11,dense_layers=1",
                       "Wan2.2-A14B, 40 steps (public script)"},
                      {"wan_14b_long", "decay_factor=1,sink_frames=1,dense_steps=2,dense_layers=2",
                       "Wan2.1-14B at twice its length, for weights tuned to it (paper)"},
                      {"hunyuanvideo", "decay_factor=0.95,sink_frames=0,dense_layers=0",
                       "HunyuanVideo at its usual length (public script)"},
                      {"hunyuanvideo_long", "decay_factor=1,sink_frames=1,dense_steps=2,dense_layers=2",
                       "HunyuanVideo at 2 to 4 times its length, for weights tuned to it (paper)"},
                      {"mochi_1", "decay_factor=1,sink_frames=1,dense_layers=0",
                       "at the usual length: schedule of the public script, mask of the paper"},
                      {"mochi_1_long", "decay_factor=1,sink_frames=1,dense_steps=2,dense_layers=2",
                       "at 2 to 4 times the usual length, for weights tuned to it (paper)"},
                      {"ports", "decay_factor=0.2,sink_frames=1,neighbour=half,dense_steps=0,dense_layers=0",
                       "no warm-up, as other programs' ports run it (LightX2V)"}},
          .make = make_radial};
}

}  // namespace strobe::attention
