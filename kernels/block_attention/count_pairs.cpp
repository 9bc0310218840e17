#include "kernels/block_attention/block_attention.h"
#include "kernels/block_attention/packed_keys.h"

namespace strobe::kernels {

double count_pairs(const BlockAttentionParams& params) {
  if (!params.layout) return static_cast<double>(params.heads) * params.query_tokens * params.key_tokens;
  const BlockLayoutView& layout = *params.layout;
  KeySource source;
  source.key_blocks = layout.key_blocks;
  source.key_offsets = layout.key_offsets;
  source.replicates_tail = params.replicates_tail;
  source.replicated_size = params.replicated_size;
  double pairs = 0;
  for (int plane = 0; plane < kPlanes; ++plane) {
    if (!layout.planes[plane]) continue;
    const uint64_t* bits = layout.planes[plane];
    for (int32_t h = 0; h < layout.heads; ++h) {
      for (int32_t m = 0; m < layout.query_blocks; ++m, bits += layout.words) {
        double keys = 0;
        for (int32_t w = 0; w < layout.words; ++w) {
          for (uint64_t left = bits[w]; left != 0; left &= left - 1) {
            keys += piece_rows(source, w * 64 + __builtin_ctzll(left), plane);
          }
        }
        pairs += keys * (layout.query_offsets[m + 1] - layout.query_offsets[m]);
      }
    }
  }
  return layout.heads == 1 ? pairs * params.heads : pairs;
}

}  // namespace strobe::kernels
