// Tiled attention over an instruction set's table: plan, pack, walk. Portable.
#pragma once

#include "kernels/block_attention/block_attention.h"
#include "kernels/block_attention/tile_ops.h"

namespace strobe::kernels {

void run_tiled_attention(const TileOps& ops, const BlockAttentionParams& params);

}  // namespace strobe::kernels
