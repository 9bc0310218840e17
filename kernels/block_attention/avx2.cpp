// Tiled attention in fp32 with AVX2 and FMA: register tile 6 rows x 16 columns.
//
// Limit: the FMA units. A step of the register tile is 12 FMA against 8 loads; the softmax takes 0.7 cycles an element
// against 2 head_dim / 16 of the two products.
#include "kernels/block_attention/tile_kernels.h"
#include "kernels/block_attention/tile_packing.h"
#include "kernels/block_attention/tiles.h"

namespace strobe::kernels {

const TileOps& tile_ops_fp32_avx2() {
  using Kernels = TileKernels<Avx2>;
  static const TileOps ops = {Avx2::kLanes,      Avx2::kLanes,      Avx2::kIsBf16,       widen_rows,
                              pack_queries_fp32, pack_keys_fp32<8>, pack_values_fp32<8>, Kernels::scores,
                              Kernels::softmax,  Kernels::values,   Kernels::finish};
  return ops;
}

}  // namespace strobe::kernels
