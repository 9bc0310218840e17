// What block scores add to tiled attention: what is done with a stage of scores instead of softmax and values.
#pragma once

#include "kernels/block_attention/tile_ops.h"

namespace strobe::kernels {

constexpr float kMassLimit = 30.0F * kLog2E;  // of an exponent: a stale lse must not overflow

struct ScoreOps {
  // columns[i] = sum over rows [first, end) of 2^min(s - m, kMassLimit), i < count x lanes. The rows' lse is in tile.m.
  // Adds to tile.l, so that a row's sum over all keys comes out.
  void (*mass)(const Tile& tile, int count, int first, int end, float* columns) = nullptr;
  // maxima[row][i] of group i < count, rows kStageGroups apart; raises tile.m, and sums 2^(s - m) into tile.l if
  // `wants_sum`.
  void (*maxima)(const Tile& tile, int count, bool wants_sum, float* maxima) = nullptr;
};

const ScoreOps& score_ops_avx2();
const ScoreOps& score_ops_avx512();

}  // namespace strobe::kernels
