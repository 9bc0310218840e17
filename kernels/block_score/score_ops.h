// What block scores add to tiled attention: what is done with a stage of scores instead of softmax and values.
#pragma once

#include "kernels/block_attention/tile_ops.h"

namespace strobe::kernels {

constexpr float kMassLimit = 30.0F * kLog2E;  // of an exponent: a stale lse must not overflow

struct ScoreOps {
  // columns[i] = sum over rows [first, end) of 2^min(s - m, kMassLimit), i < count x lanes. The rows' lse is in tile.m.
  // Adds to tile.l, so that a row's sum over all keys comes out.
  void (*mass)(const Tile& tile, int count, int first, int end, float* columns) = nullptr;
  // Raises best[row * stride + r] to the largest score of run r < count: runs[r] groups, one run behind the other. Room
  // for three more runs and rows is touched, but keeps its values. `wants_sum`: raises tile.m too and sums 2^(s - m)
  // into tile.l.
  void (*maxima)(const Tile& tile, const uint8_t* runs, int count, bool wants_sum, float* best,
                 int64_t stride) = nullptr;
  // Raises best[j] to maxima[j] - their largest - `offset`, j < count, a multiple of 16; nothing if all are -inf.
  void (*raise_relative)(const float* maxima, int64_t count, float offset, float* best) = nullptr;
};

const ScoreOps& score_ops_avx2();
const ScoreOps& score_ops_avx512();

}  // namespace strobe::kernels
