#include "kernels/block_score/score_kernels.h"
#include "kernels/common/simd_avx2.h"

namespace strobe::kernels {

const ScoreOps& score_ops_avx2() {
  using Kernels = ScoreKernels<Avx2>;
  static const ScoreOps ops = {Kernels::mass, Kernels::maxima, Kernels::raise_relative};
  return ops;
}

}  // namespace strobe::kernels
