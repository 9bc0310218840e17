// Attention by its definition: float64, direct softmax over explicit lists of keys. The definition of right.
#pragma once

#include "kernels/block_attention/block_attention.h"

namespace strobe::kernels {

void run_reference_attention(const BlockAttentionParams& params);

// One query row of one (batch row, head), unrounded: out [head_dim] (or null) and the returned log-sum-exp.
double reference_attention_row(const BlockAttentionParams& params, int32_t batch_row, int32_t head, int32_t token,
                               double* out);

}  // namespace strobe::kernels
