#include <immintrin.h>

#include "kernels/common/fma_loops.h"

namespace strobe::kernels {

float run_fma_avx512_bf16(int64_t rounds) {
  __m512 sum[kFmaAccumulators];
  for (int i = 0; i < kFmaAccumulators; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  // 0.25 and 0.5 in every half; sums grow by 0.25 a step, which rounds away once they are large.
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3e803e80), b = (__m512bh)_mm512_set1_epi32(0x3f003f00);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < kFmaUnroll; ++u) {
#pragma GCC unroll 12
      for (int i = 0; i < kFmaAccumulators; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
    }
  }
  for (int i = 1; i < kFmaAccumulators; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  return _mm512_cvtss_f32(sum[0]);
}

}  // namespace strobe::kernels
