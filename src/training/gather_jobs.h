// The dense blocks into which the kept pairs of one head are gathered.
//
// Contract  Every kept pair is in exactly one job, and every pair of a job is kept. Token indices are raster indices,
//           the orders of the plan undone. Hidden keys are in no job; jobs without a pair are left out.
#pragma once

#include <cstdint>
#include <vector>

#include "training/attention_gradients.h"

namespace strobe::training {

// Keys as an operand's rows, each the mean of its members (one, where nothing is pooled; a replicated token is named
// again).
struct KeyRows {
  std::vector<int32_t> starts = {0};  // [rows + 1], first member of each row
  std::vector<int32_t> members;       // raster indices
  std::vector<float> bias;            // [rows], of the logit

  int64_t size() const { return static_cast<int64_t>(bias.size()); }
};

struct GatherJob {
  std::vector<int32_t> queries;  // raster indices
  KeyRows keys;
};

// `key_bias`: [key_tokens] of the batch row in raster order, or null. The token counts matter where the plan is dense.
std::vector<GatherJob> gather_jobs(const HeadPlan& plan, const float* key_bias, int64_t query_tokens,
                                   int64_t key_tokens);

}  // namespace strobe::training
