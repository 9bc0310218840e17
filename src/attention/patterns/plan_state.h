// What methods remember from step to step: a layout, and the step that built it.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention/pattern.h"

namespace strobe::attention {

// The blocks of a call.
struct BlockOffsets {
  std::vector<int32_t> query;
  std::vector<int32_t> key;

  BlockOffsets(const PatternCall& call, int64_t query_block, int64_t key_block)
      : query(BlockLayout::uniform_offsets(call.q.size(2), query_block)),
        key(BlockLayout::uniform_offsets(call.k.size(2), key_block)) {}
};

// The state keeps a layout of other tokens, heads or blocks (a clip that grew, another size of blocks): it is of no use.
inline bool holds_layout_for(const PatternState& state, int64_t heads, const BlockOffsets& blocks) {
  return state.layout && state.layout->heads() == heads && state.layout->query_offsets() == blocks.query &&
         state.layout->key_offsets() == blocks.key;
}

inline void remember(PatternState& state, LayoutPtr layout, int64_t step) {
  state.layout = std::move(layout);
  state.tensors["built_at_step"] = at::full({1}, step, at::kLong);
}

// Whether one of `steps` has come since the layout was built. A step that never reached the method (a step cache skipped
// it) is due at the next one that does; a step is served once, however often the model is evaluated in it.
inline bool is_due(const std::vector<int64_t>& steps, const PatternState& state, int64_t step) {
  const auto built = state.tensors.find("built_at_step");
  const int64_t last = built == state.tensors.end() ? -1 : built->second.item<int64_t>();
  return std::any_of(steps.begin(), steps.end(), [&](int64_t s) { return s > last && s <= step; });
}

inline int64_t layout_bytes(int64_t tokens, int64_t heads, int64_t query_block, int64_t key_block) {
  const int64_t rows = (tokens + query_block - 1) / query_block, cols = (tokens + key_block - 1) / key_block;
  return heads * rows * ((cols + 63) / 64) * 8 + (rows + cols + 2) * 4;
}

// Sets columns first + indices of a row.
inline void keep_blocks(BlockLayout& layout, int64_t head, int64_t row, int64_t first,
                        const std::vector<int32_t>& indices) {
  uint64_t* const bits = layout.row(head, row);
  for (const int32_t index : indices) bits[(first + index) / 64] |= uint64_t{1} << ((first + index) % 64);
}

}  // namespace strobe::attention
