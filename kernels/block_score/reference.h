// Block scores by their definitions, in float64.
#pragma once

#include "kernels/block_score/block_score.h"

namespace strobe::kernels {

void run_reference_mass(const BlockMassParams& params);
void run_reference_importance(const BlockImportanceParams& params);

}  // namespace strobe::kernels
