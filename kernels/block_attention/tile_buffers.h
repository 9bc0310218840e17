// A worker's memory for one query tile, and how rows of q get into it.
#pragma once

#include <cstdint>

#include "kernels/block_attention/tile_ops.h"
#include "kernels/common/scratch.h"
#include "kernels/common/types.h"

namespace strobe::kernels {

class TileBuffers {
 public:
  // Room for a tile of this shape and `extra` bytes more; valid until the next call. Pages are the thread's own.
  Tile prepare(const TileOps& ops, const RecordShape& shape, int64_t extra);
  void* extra() const { return extra_; }

  // Packs rows of q: row i is token tokens[i]; its scale is scales[i].
  void pack_queries(const TileOps& ops, ScalarType dtype, const void* q, int64_t token_stride, const int32_t* tokens,
                    const float* scales, const Tile& tile);

 private:
  Scratch memory_;
  float* wide_ = nullptr;  // [kTileRows, head_dim], of bf16 rows
  void* extra_ = nullptr;
};

// Maxima to their lowest, sums and outputs to zero.
void clear_state(const TileOps& ops, const Tile& tile);

}  // namespace strobe::kernels
