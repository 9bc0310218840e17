// Eight floats in a ymm register, for the templates of tile_kernels.h and score_kernels.h.
//
// Included by files that are compiled for AVX2 and FMA only. Everything is in an unnamed namespace, so that no function
// with AVX code can be linked into portable files.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace strobe::kernels {
namespace {

struct Avx2 {
  using Vec = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kVectors =
      2;  // of a register tile's row: 6 x 2 accumulators, 2 operands and 1 broadcast in 16 ymm
  static constexpr bool kIsBf16 = false;
  static constexpr int kScoreUnroll = 8;      // steps of the score loop: with four, g++ 12 loses 2 %
  static constexpr int kScoreLinesAhead = 1;  // lines fetched in an iteration of the score loop
  static constexpr int kValueLinesAhead = 1;  // and for a group of values

  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec set(float value) { return _mm256_set1_ps(value); }
  static Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static Vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }  // b if either is NaN
  static Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec multiply_add(Vec sum, Vec a, Vec b) { return _mm256_fmadd_ps(a, b, sum); }
  // a * 2^n where the low bits of `n` hold an integer.
  static Vec scale_by_power(Vec a, Vec n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
  }
  static void store_probability(float* row, int index, Vec p) { store(row + index * kLanes, p); }

  // The largest lane of each of four vectors.
  static __m128 maxima(Vec a, Vec b, Vec c, Vec d) {
    const Vec ab = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const Vec cd = _mm256_max_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const Vec all = _mm256_max_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    return _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  }
  static Vec widen(__m128 v) { return _mm256_castps128_ps256(v); }
  static __m128 narrow(Vec v) { return _mm256_castps256_ps128(v); }
};

// Rows to columns: the j-th result holds lane j of the eight.
inline void transpose_8x8(__m256 (&r)[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

}  // namespace
}  // namespace strobe::kernels
