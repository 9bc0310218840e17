// The stages of score_ops.h for an instruction set given as a struct of vector operations.
#pragma once

#include "kernels/block_attention/tile_kernels.h"
#include "kernels/block_score/score_ops.h"

namespace strobe::kernels {
namespace {

template <class Isa>
struct ScoreKernels {
  using Vec = typename Isa::Vec;
  static constexpr int kLanes = Isa::kLanes;

  static void mass(const Tile& tile, int count, int first, int end, float* columns) {
    const Vec limit = Isa::set(kMassLimit);
    Vec sums[kStageKeys / kLanes];
    for (int c = 0; c < count; ++c) sums[c] = Isa::zero();
    for (int row = first; row < end; ++row) {
      const float* s = tile.s + int64_t{row} * kScoreStride;
      float* l = tile.l + int64_t{row} * kLanes;
      const Vec m = Isa::broadcast(tile.m + row);
      Vec total = Isa::load(l);
      for (int c = 0; c < count; ++c) {
        const Vec x = Isa::min(limit, Isa::sub(Isa::load(s + c * kLanes), m));
        const Vec p = exp2_clamped<Isa>(x);
        total = Isa::add(total, p);
        sums[c] = Isa::add(sums[c], p);
      }
      Isa::store(l, total);
    }
    for (int c = 0; c < count; ++c) Isa::store(columns + c * kLanes, sums[c]);
  }

  // The largest of the four floats of each of four vectors.
  static __m128 largest_each(const __m128 (&rows)[4]) {
    const __m128 ab = _mm_max_ps(_mm_unpacklo_ps(rows[0], rows[1]), _mm_unpackhi_ps(rows[0], rows[1]));
    const __m128 cd = _mm_max_ps(_mm_unpacklo_ps(rows[2], rows[3]), _mm_unpackhi_ps(rows[2], rows[3]));
    return _mm_max_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
  }

  // The largest of `runs[0..3]` of a row's groups, whose first is at `s`; those from `count` on are -inf.
  static STROBE_INLINE __m128 run_maxima(const float* s, const uint8_t* runs, int count) {
    Vec top[4];
    for (int r = 0; r < 4; ++r) {
      top[r] = Isa::set(-__builtin_inff());
      for (int g = 0; r < count && g < runs[r]; ++g, s += kLanes) top[r] = Isa::max(top[r], Isa::load(s));
    }
    return Isa::maxima(top[0], top[1], top[2], top[3]);
  }

  // Rows are taken by four; the buffers have room for the three that may lie beyond the last one.
  static void maxima(const Tile& tile, const uint8_t* runs, int count, bool wants_sum, float* best, int64_t stride) {
    int groups = 0;
    for (int r = 0; r < count; ++r) groups += runs[r];
    for (int row = 0; row < tile.rows; row += 4) {
      __m128 top[4];
      for (int r = 0; r < 4; ++r) {
        const float* s = tile.s + int64_t{row + r} * kScoreStride;
        float* of_row = best + (row + r) * stride;
        top[r] = _mm_set1_ps(-__builtin_inff());
        for (int run = 0; run < count; run += 4) {
          const __m128 largest = _mm_max_ps(_mm_loadu_ps(of_row + run), run_maxima(s, runs + run, count - run));
          _mm_storeu_ps(of_row + run, largest);
          top[r] = _mm_max_ps(top[r], largest);
          for (int i = run; i < run + 4 && i < count; ++i) s += runs[i] * kLanes;
        }
      }
      if (!wants_sum) continue;
      TileKernels<Isa>::raise_maxima(tile, row, largest_each(top));
      for (int r = 0; r < 4; ++r) {
        const float* s = tile.s + int64_t{row + r} * kScoreStride;
        float* l = tile.l + int64_t{row + r} * kLanes;
        const Vec m = Isa::broadcast(tile.m + row + r);
        Vec total = Isa::load(l);
        for (int c = 0; c < groups; ++c) {
          total = Isa::add(total, exp2_clamped<Isa>(Isa::sub(Isa::load(s + c * kLanes), m)));
        }
        Isa::store(l, total);
      }
    }
  }

  static void raise_relative(const float* maxima, int64_t count, float offset, float* best) {
    const float lowest = -__builtin_inff();
    Vec top = Isa::set(lowest);
    for (int64_t j = 0; j < count; j += kLanes) top = Isa::max(top, Isa::load(maxima + j));
    alignas(64) float lanes[kLanes];
    Isa::store(lanes, top);
    float largest = lanes[0];
    for (const float lane : lanes) largest = lane > largest ? lane : largest;
    if (largest == lowest) return;
    const Vec from = Isa::set(largest), less = Isa::set(offset);
    for (int64_t j = 0; j < count; j += kLanes) {
      // min gives its second operand for NaN: +inf less +inf is 0.
      const Vec x = Isa::min(Isa::sub(Isa::load(maxima + j), from), Isa::zero());
      Isa::store(best + j, Isa::max(Isa::sub(x, less), Isa::load(best + j)));
    }
  }
};

}  // namespace
}  // namespace strobe::kernels
