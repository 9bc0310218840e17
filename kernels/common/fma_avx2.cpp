#include <immintrin.h>

#include "kernels/common/fma_loops.h"

namespace strobe::kernels {

float run_fma_avx2(int64_t rounds) {
  __m256 sum[kFmaAccumulators];
  for (int i = 0; i < kFmaAccumulators; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  // Values that neither grow nor become denormal.
  const __m256 a = _mm256_set1_ps(0.5F), b = _mm256_set1_ps(0.25F);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < kFmaUnroll; ++u) {
#pragma GCC unroll 12
      for (int i = 0; i < kFmaAccumulators; ++i) sum[i] = _mm256_fmadd_ps(sum[i], a, b);
    }
  }
  for (int i = 1; i < kFmaAccumulators; ++i) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  return _mm256_cvtss_f32(sum[0]);
}

}  // namespace strobe::kernels
