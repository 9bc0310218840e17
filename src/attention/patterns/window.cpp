// Window attention: a query block reads the key blocks that hold a patch inside a window around one of its own.
//
// Source   sliding windows over video latents, arXiv 2502.04507. Blocks here are runs of raster tokens, not tiles, and
//          count as inside if any pair of their tokens is, so that the token window is never cut.
// Input    the grid; window as half-widths in latent patches, frames/rows/cols. No tensors.
// Output   one layout for all heads. Text in blocks of its own, always kept.
// Cost     one range of blocks for each line of patches in each window.
#include <algorithm>

#include "core/torch.h"
// After the precompiled header.
#include "attention/pattern.h"
#include "attention/text_blocks.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

struct Span {
  int64_t first = 0;
  int64_t end = 0;
};

struct Box {
  Span frames, rows, cols;
};

Span widened(Span span, int64_t by, int64_t limit) {
  return {std::max<int64_t>(0, span.first - by), std::min(limit, span.end + by)};
}

class WindowMask {
 public:
  WindowMask(const TokenGrid& grid, const std::vector<int64_t>& window, int64_t block_size, BlockLayout& layout)
      : grid_(grid), window_(window), block_size_(block_size), layout_(layout) {}

  void add_query_block(int64_t block) {
    const int64_t first = block * block_size_, end = std::min(first + block_size_, grid_.video_tokens());
    for (const Box& box : boxes_of_run(first, end)) {
      keep(block, {widened(box.frames, window_[0], grid_.frames), widened(box.rows, window_[1], grid_.rows),
                   widened(box.cols, window_[2], grid_.cols)});
    }
  }

 private:
  // A run of raster tokens is a piece of a line, whole lines of a frame, whole frames, whole lines, a piece of a line.
  std::vector<Box> boxes_of_run(int64_t first, int64_t end) const {
    const int64_t cols = grid_.cols, frame_tokens = grid_.rows * cols;
    std::vector<Box> boxes;
    while (first < end) {
      const int64_t frame = first / frame_tokens, row = first % frame_tokens / cols, col = first % cols;
      Box box{{frame, frame + 1}, {row, row + 1}, {col, cols}};
      if (col != 0 || end - first < cols) {
        box.cols.end = std::min(cols, col + end - first);
        first += box.cols.end - col;
      } else if (row != 0 || end - first < frame_tokens) {
        box.rows.end = std::min(grid_.rows, row + (end - first) / cols);
        first += (box.rows.end - row) * cols;
      } else {
        box.rows = {0, grid_.rows};
        box.frames.end = frame + (end - first) / frame_tokens;
        first += (box.frames.end - frame) * frame_tokens;
      }
      boxes.push_back(box);
    }
    return boxes;
  }

  // Keeps the key blocks that hold a patch of the box; whole lines and whole frames are one range.
  void keep(int64_t block, const Box& box) {
    const int64_t cols = grid_.cols, frame_tokens = grid_.rows * cols;
    const bool has_whole_lines = box.cols.end - box.cols.first == cols;
    if (has_whole_lines && box.rows.end - box.rows.first == grid_.rows) {
      return keep_tokens(block, box.frames.first * frame_tokens, box.frames.end * frame_tokens);
    }
    for (int64_t frame = box.frames.first; frame < box.frames.end; ++frame) {
      const int64_t start = frame * frame_tokens;
      if (has_whole_lines) {
        keep_tokens(block, start + box.rows.first * cols, start + box.rows.end * cols);
        continue;
      }
      for (int64_t row = box.rows.first; row < box.rows.end; ++row) {
        keep_tokens(block, start + row * cols + box.cols.first, start + row * cols + box.cols.end);
      }
    }
  }

  void keep_tokens(int64_t block, int64_t first, int64_t end) {
    layout_.set_range(0, block, first / block_size_, (end - 1) / block_size_ + 1);
  }

  const TokenGrid& grid_;
  const std::vector<int64_t>& window_;
  int64_t block_size_;
  BlockLayout& layout_;
};

class WindowPattern final : public AttentionPattern {
 public:
  WindowPattern(std::vector<int64_t> window, int64_t block_size)
      : window_(std::move(window)), block_size_(block_size) {}

  std::string name() const override { return "window"; }
  PlanDependence dependence() const override { return {}; }
  PatternOrders order(const AttentionSite& site) const override {
    const auto order = text_last_order(site.grid);
    return {.q = order, .k = order};
  }
  AttentionPlan plan(const PatternCall& call) const override {
    const TokenGrid& grid = call.site.grid;
    STROBE_CHECK(grid.video_tokens() >= 1, "window: a grid of {}x{}x{} patches", grid.frames, grid.rows, grid.cols);
    std::vector<int32_t> offsets = BlockLayout::uniform_offsets(grid.video_tokens(), block_size_);
    const auto video_blocks = static_cast<int64_t>(offsets.size()) - 1;
    offsets = with_text_blocks(std::move(offsets), grid.text_tokens, block_size_);
    BlockLayout layout(1, offsets, offsets);
    WindowMask mask(grid, window_, block_size_, layout);
    for (int64_t block = 0; block < video_blocks; ++block) mask.add_query_block(block);
    keep_text(layout, video_blocks, video_blocks);
    return plan_of(std::move(layout), call.site);
  }

 private:
  std::vector<int64_t> window_;  // half-widths in frames, rows, columns
  int64_t block_size_;
};

std::unique_ptr<AttentionPattern> make_window(OptionReader& options) {
  // The source's window for HunyuanVideo at 768 x 1280: 18 x 24 x 24 of 30 x 48 x 80 patches.
  std::vector<int64_t> window = options.integers("window", {9, 12, 12}, 3, {.min = 0, .max = 1e6},
                                                 "half-widths in latent patches: frames/rows/cols");
  const int64_t block_size = options.integer("block_size", 64, {.min = 1, .max = 65536}, "tokens of a block");
  const auto query_block =
      options.optional_integer("query_block", {.min = 1, .max = 65536}, "tokens of a query block: block_size");
  if (query_block && *query_block != block_size) {
    options.fail("query_block", fmt::format("expected block_size, which is {}, found {}", block_size, *query_block));
  }
  return std::make_unique<WindowPattern>(std::move(window), block_size);
}

}  // namespace

PatternInfo window_pattern_info() {
  return {.name = "window",
          .sentence = "blocks with a patch inside a window of frames, rows and columns",
          .source = "arXiv 2502.04507",
          .dense_fraction = 0.25,  // as the other untuned methods
          .presets = {},
          .make = make_window};
}

}  // namespace strobe::attention
