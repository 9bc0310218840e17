// What patterns that choose among video blocks do with text: a text key is kept by every query, a text query keeps every
// key.
//
// Contract  Methods with blocks of their own (with_text_blocks) put the text last in blocks that hold nothing else, so
//           nothing is rounded at the border. Methods whose blocks run over all tokens (video_blocks) call a block with
//           at least one text token a text block. Text is one run at one end of the tokens, so the video blocks are one
//           run too; it may be empty.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "attention/pattern.h"
#include "core/block_layout.h"
#include "core/token_grid.h"
#include "core/token_order.h"

namespace strobe::attention {

// `video_offsets` and then blocks of at most `block_size` text tokens.
std::vector<int32_t> with_text_blocks(std::vector<int32_t> video_offsets, int64_t text_tokens, int64_t block_size);

// Keeps the columns from `first_col` on in every row, and everything in the rows from `first_row` on.
void keep_text(BlockLayout& layout, int64_t first_row, int64_t first_col);

// Raster order with the text last; null where the tokens come so.
std::shared_ptr<const TokenOrder> text_last_order(const TokenGrid& grid);

struct BlockRange {
  int64_t first = 0;
  int64_t end = 0;

  int64_t size() const { return end - first; }
  bool contains(int64_t block) const { return block >= first && block < end; }
};

// `is_reordered`: the pattern asked for an order, which puts the text last.
BlockRange video_blocks(const TokenGrid& grid, bool is_reordered, const std::vector<int32_t>& offsets);

// The plan of a layout: dense, with a note, where it keeps every pair and the site does not ask for layouts always.
AttentionPlan plan_of(BlockLayout layout, const AttentionSite& site);

}  // namespace strobe::attention
