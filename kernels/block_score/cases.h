// The cases that tests and `strobe_kernel_check` run block scores on. Judged against the reference in float64.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/block_score/block_score.h"

namespace strobe::kernels {

struct ScoreCase {
  std::string name;
  ScalarType dtype = ScalarType::kFloat32;
  int32_t batch = 1, heads = 2, key_heads = 2, query_tokens = 0, key_tokens = 0, head_dim = 64;
  int32_t query_block = 64, key_block = 64;  // 0: random lengths
  bool has_bias = false, has_hidden_keys = false, has_hidden_blocks = false;
  int32_t hidden_shift = 0;       // hidden blocks: every second hundred of keys, this far on
  bool has_largest_keys = false;  // of bias +inf; importance alone is compared
  float lse_error = 0;            // a stale lse is off by this, plus and minus
  float gain = 1;
};

std::vector<ScoreCase> score_cases();

struct ScoreResult {
  std::string skipped, failure;
  double mass = 0, sums = 0;  // relative errors
  double importance = 0;      // largest difference, by either score
};

// Compares mass, row sums and importance by both scores, and their bits for 1, 2 and 3 workers.
ScoreResult run_score_case(const BlockScoreKernel& kernel, const ScoreCase& score_case, const Parallel& parallel);

}  // namespace strobe::kernels
