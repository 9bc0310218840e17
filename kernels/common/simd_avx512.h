// Sixteen floats in a zmm register, for the templates of tile_kernels.h and score_kernels.h. See simd_avx2.h.
#pragma once

#include "kernels/common/simd_avx2.h"

namespace strobe::kernels {
namespace {

struct Avx512 {
  using Vec = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kVectors = 4;  // 6 x 4 accumulators, 4 operands and 1 broadcast in 32 zmm
  static constexpr bool kIsBf16 = false;
  static constexpr int kScoreUnroll = 2;  // with four, g++ 12 spills accumulators
  static constexpr int kScoreLinesAhead = 1;
  static constexpr int kValueLinesAhead = 4;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec set(float value) { return _mm512_set1_ps(value); }
  static Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // b if either is NaN
  static Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec multiply_add(Vec sum, Vec a, Vec b) { return _mm512_fmadd_ps(a, b, sum); }
  // a * 2^n where the low bits of `n` hold an integer.
  static Vec scale_by_power(Vec a, Vec n) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
  }
  static void store_probability(float* row, int index, Vec p) { store(row + index * kLanes, p); }

  static __m256 halves_max(Vec v) { return _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); }
  // The largest lane of each of four vectors.
  static __m128 maxima(Vec a, Vec b, Vec c, Vec d) {
    return Avx2::maxima(halves_max(a), halves_max(b), halves_max(c), halves_max(d));
  }
  static Vec widen(__m128 v) { return _mm512_castps128_ps512(v); }
  static __m128 narrow(Vec v) { return _mm512_castps512_ps128(v); }
};

}  // namespace
}  // namespace strobe::kernels
