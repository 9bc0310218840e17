// Block scores over the packed tiles of block attention. Portable.
#pragma once

#include "kernels/block_score/block_score.h"
#include "kernels/block_score/score_ops.h"

namespace strobe::kernels {

void run_tiled_mass(const TileOps& tiles, const ScoreOps& ops, const BlockMassParams& params);
void run_tiled_maxima(const TileOps& tiles, const ScoreOps& ops, const BlockMaxParams& params);

}  // namespace strobe::kernels
