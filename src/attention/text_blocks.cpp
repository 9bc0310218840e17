#include "attention/text_blocks.h"

#include <algorithm>
#include <utility>

namespace strobe::attention {

std::vector<int32_t> with_text_blocks(std::vector<int32_t> video_offsets, int64_t text_tokens, int64_t block_size) {
  const int64_t video_tokens = video_offsets.back();
  for (int64_t first = 0; first < text_tokens; first += block_size) {
    video_offsets.push_back(static_cast<int32_t>(video_tokens + std::min(first + block_size, text_tokens)));
  }
  return video_offsets;
}

void keep_text(BlockLayout& layout, int64_t first_row, int64_t first_col) {
  for (int64_t head = 0; head < layout.heads(); ++head) {
    for (int64_t row = 0; row < layout.query_blocks(); ++row) {
      layout.set_range(head, row, row < first_row ? first_col : 0, layout.key_blocks());
    }
  }
}

std::shared_ptr<const TokenOrder> text_last_order(const TokenGrid& grid) {
  return grid.is_text_first && grid.text_tokens > 0 ? raster_order(grid) : nullptr;
}

BlockRange video_blocks(const TokenGrid& grid, bool is_reordered, const std::vector<int32_t>& offsets) {
  const bool is_text_first = grid.is_text_first && !is_reordered;
  const int64_t first_token = is_text_first ? grid.text_tokens : 0;
  const int64_t end_token = first_token + grid.video_tokens();
  const auto blocks = static_cast<int64_t>(offsets.size()) - 1;
  BlockRange range{.first = 0, .end = blocks};
  while (range.first < blocks && offsets[static_cast<size_t>(range.first)] < first_token) ++range.first;
  while (range.end > range.first && offsets[static_cast<size_t>(range.end)] > end_token) --range.end;
  return range;
}

AttentionPlan plan_of(BlockLayout layout, const AttentionSite& site) {
  AttentionPlan plan;
  if (layout.is_full() && !site.plans_always) {
    plan.note = "every block kept";
  } else {
    plan.layout = std::make_shared<const BlockLayout>(std::move(layout));
  }
  return plan;
}

}  // namespace strobe::attention
