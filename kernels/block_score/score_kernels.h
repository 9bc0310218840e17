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

  // The largest of each of four rows' `count` floats (rounded up to four; those past the last are -inf).
  static __m128 row_maxima(const float* maxima, int count) {
    __m128 top[4];
    for (int r = 0; r < 4; ++r) {
      const float* row = maxima + r * kStageGroups;
      top[r] = _mm_loadu_ps(row);
      for (int i = 4; i < count; i += 4) top[r] = _mm_max_ps(top[r], _mm_loadu_ps(row + i));
    }
    const __m128 ab = _mm_max_ps(_mm_unpacklo_ps(top[0], top[1]), _mm_unpackhi_ps(top[0], top[1]));
    const __m128 cd = _mm_max_ps(_mm_unpacklo_ps(top[2], top[3]), _mm_unpackhi_ps(top[2], top[3]));
    return _mm_max_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
  }

  // Rows are taken by four; the buffers have room for the three that may lie beyond the last one.
  static void maxima(const Tile& tile, int count, bool wants_sum, float* maxima) {
    const Vec lowest = Isa::set(-__builtin_inff());
    for (int row = 0; row < tile.rows; row += 4) {
      float* of_rows = maxima + int64_t{row} * kStageGroups;
      for (int r = 0; r < 4; ++r) {
        const float* s = tile.s + int64_t{row + r} * kScoreStride;
        for (int c = 0; c < count; c += 4) {
          const auto group = [&](int i) { return c + i < count ? Isa::load(s + (c + i) * kLanes) : lowest; };
          _mm_storeu_ps(of_rows + r * kStageGroups + c, Isa::maxima(group(0), group(1), group(2), group(3)));
        }
      }
      TileKernels<Isa>::raise_maxima(tile, row, row_maxima(of_rows, count));
      for (int r = 0; r < 4 && wants_sum; ++r) {
        const float* s = tile.s + int64_t{row + r} * kScoreStride;
        float* l = tile.l + int64_t{row + r} * kLanes;
        const Vec m = Isa::broadcast(tile.m + row + r);
        Vec total = Isa::load(l);
        for (int c = 0; c < count; ++c) {
          total = Isa::add(total, exp2_clamped<Isa>(Isa::sub(Isa::load(s + c * kLanes), m)));
        }
        Isa::store(l, total);
      }
    }
  }
};

}  // namespace
}  // namespace strobe::kernels
