#include "kernels/block_score/block_score.h"

#include "kernels/block_attention/tiles.h"
#include "kernels/block_score/reference.h"
#include "kernels/block_score/tiled_scores.h"
#include "kernels/common/machine.h"

namespace strobe::kernels {
namespace {

constexpr int32_t kMaxHeadDim = 256;

template <bool Machine::*feature>
std::string refusal(ScalarType /*dtype*/, int32_t head_dim) {
  if (!(machine().*feature)) return missing_feature(feature);
  return head_dim > kMaxHeadDim ? head_dim_refusal(head_dim, kMaxHeadDim) : "";
}

template <const TileOps& (*tiles)(), const ScoreOps& (*ops)()>
void run_mass(const BlockMassParams& params) {
  run_tiled_mass(tiles(), ops(), params);
}

template <const TileOps& (*tiles)(), const ScoreOps& (*ops)()>
void run_importance(const BlockImportanceParams& params) {
  run_tiled_importance(tiles(), ops(), params);
}

}  // namespace

const std::vector<BlockScoreKernel>& block_score_kernels() {
  static const std::vector<BlockScoreKernel> kernels = {
#define STROBE_BLOCK_SCORE(name, feature, tiles, ops) \
  {#name, refusal<&Machine::feature>, run_mass<tiles, ops>, run_importance<tiles, ops>},
#include "kernels/block_score/block_score.inc"
#undef STROBE_BLOCK_SCORE
      {"block_score_reference", [](ScalarType, int32_t) { return std::string(); }, run_reference_mass,
       run_reference_importance},
  };
  return kernels;
}

}  // namespace strobe::kernels
