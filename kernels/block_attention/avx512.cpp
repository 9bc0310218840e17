// Tiled attention in fp32 with AVX-512 (F, BW, DQ, VL): register tile 6 rows x 64 columns, groups of 16 keys.
//
// Limit: the FMA units. A step of the register tile is 24 FMA against 10 loads.
#include "kernels/block_attention/tile_kernels.h"
#include "kernels/block_attention/tile_packing.h"
#include "kernels/block_attention/tiles.h"
#include "kernels/common/simd_avx512.h"

namespace strobe::kernels {

const TileOps& tile_ops_fp32_avx512() {
  using Kernels = TileKernels<Avx512>;
  static const TileOps ops = {Avx512::kLanes,    Avx512::kLanes,     Avx512::kIsBf16,      widen_rows,
                              pack_queries_fp32, pack_keys_fp32<16>, pack_values_fp32<16>, Kernels::scores,
                              Kernels::softmax,  Kernels::values,    Kernels::finish};
  return ops;
}

}  // namespace strobe::kernels
