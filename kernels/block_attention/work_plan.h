// Cuts the query rows of a layout into work items for tiles.
//
// Runs of query blocks that keep the same key blocks form tiles of up to 128 rows. Where blocks are too short for that
// (single tokens), there are two ways, and the cheaper one by a simple cost model is taken for the whole head:
//   union   a tile of neighbours walks the union of their key blocks, rows masked out where they do not keep one;
//   gather  an item of 1,024 rows or more goes through the key blocks in ascending order; the rows that keep a block are
//           gathered into full tiles, and their running maximum, sum and output live in memory.
// The plan depends on the layout only, so that the bits of the result do not depend on the number of workers.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/block_attention/block_attention.h"
#include "kernels/block_attention/packed_keys.h"

namespace strobe::kernels {

struct WorkItem {
  enum class Kind : uint8_t { kSame, kUnion, kGather };
  Kind kind = Kind::kSame;
  int32_t first_row = 0, rows = 0;         // tokens
  int32_t first_block = 0, end_block = 0;  // query blocks that the rows lie in; kSame: all keep what the first keeps
  double cost = 0;                         // rows x keys, about
};

struct WorkPlan {
  std::vector<std::vector<WorkItem>> heads;  // of the layout; descending cost within a head
  std::vector<uint8_t> used;                 // PackedKeys::plan
  int used_tables = 1;
};

// A layout for a dense call: one query block, key blocks of 64 tokens, so that it does what a full layout does.
struct DenseLayout {
  std::vector<int32_t> query_offsets, key_offsets;
  std::vector<uint64_t> row;
  BlockLayoutView view;
  void make(int32_t query_tokens, int32_t key_tokens);
};

// Bits of row m of a plane of head h; null if the plane is empty.
inline const uint64_t* layout_row(const BlockLayoutView& layout, int plane, int32_t h, int32_t m) {
  const uint64_t* bits = layout.planes[plane];
  return bits ? bits + (int64_t{h} * layout.query_blocks + m) * layout.words : nullptr;
}

// `key_heads` > 1 and a layout with heads: which blocks are used is noted per key head.
void plan_work(const BlockLayoutView& layout, const KeySource& source, int32_t heads, WorkPlan& plan);

}  // namespace strobe::kernels
