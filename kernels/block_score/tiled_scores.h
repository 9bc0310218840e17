// Block scores over the packed tiles of block attention. Portable.
#pragma once

#include "kernels/block_score/block_score.h"
#include "kernels/block_score/score_ops.h"

namespace strobe::kernels {

void run_tiled_mass(const TileOps& tiles, const ScoreOps& ops, const BlockMassParams& params);
void run_tiled_importance(const TileOps& tiles, const ScoreOps& ops, const BlockImportanceParams& params);

}  // namespace strobe::kernels
