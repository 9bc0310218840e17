// The instruction sets' tables (block_attention/<set>.cpp). Each is compiled in where the compiler knows the set.
#pragma once

#include "kernels/block_attention/tile_ops.h"

namespace strobe::kernels {

const TileOps& tile_ops_fp32_avx2();
const TileOps& tile_ops_fp32_avx512();
const TileOps& tile_ops_bf16_avx512();

}  // namespace strobe::kernels
