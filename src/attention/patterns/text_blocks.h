// Where the text of a call stands, in tokens and in blocks.
//
// Contract  Text is one run at one end of the tokens. A block with at least one text token is a text block, so the video
//           blocks are one run too; it may be empty.
#pragma once

#include <cstdint>
#include <vector>

#include "core/token_grid.h"

namespace strobe::attention {

struct BlockRange {
  int64_t first = 0;
  int64_t end = 0;

  int64_t size() const { return end - first; }
  bool contains(int64_t block) const { return block >= first && block < end; }
};

// `is_reordered`: the pattern asked for an order, which puts the text last.
inline BlockRange video_blocks(const TokenGrid& grid, bool is_reordered, const std::vector<int32_t>& offsets) {
  const bool is_text_first = grid.is_text_first && !is_reordered;
  const int64_t first_token = is_text_first ? grid.text_tokens : 0;
  const int64_t end_token = first_token + grid.video_tokens();
  const auto blocks = static_cast<int64_t>(offsets.size()) - 1;
  BlockRange range{.first = 0, .end = blocks};
  while (range.first < blocks && offsets[static_cast<size_t>(range.first)] < first_token) ++range.first;
  while (range.end > range.first && offsets[static_cast<size_t>(range.end)] > end_token) --range.end;
  return range;
}

}  // namespace strobe::attention
