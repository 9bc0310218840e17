#include "kernels/block_score/score_kernels.h"
#include "kernels/common/simd_avx512.h"

namespace strobe::kernels {

const ScoreOps& score_ops_avx512() {
  using Kernels = ScoreKernels<Avx512>;
  static const ScoreOps ops = {Kernels::mass, Kernels::maxima, Kernels::raise_relative};
  return ops;
}

}  // namespace strobe::kernels
