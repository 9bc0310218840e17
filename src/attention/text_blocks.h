// What patterns that choose among video blocks do with text: it stands last, in blocks of its own, and is always kept.
//
// Contract  A text key is kept by every query, a text query keeps every key, so no block mixes video and text and
//           nothing is rounded at their border.
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

// The plan of a layout: dense, with a note, where it keeps every pair and the site does not ask for layouts always.
AttentionPlan plan_of(BlockLayout layout, const AttentionSite& site);

}  // namespace strobe::attention
