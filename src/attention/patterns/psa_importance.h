// PSA: importance of key blocks for query blocks, from a sixteenth of the score matrix (psa.md section 3).
//
// Contract  A quarter of the tokens of each block, the same offsets in every block of a head, stand for all of it. A
//           short last block is continued by its last token. Hidden keys (key_bias -inf) count for nothing.
// Source    github ziplab/Pyramid-Sparse-Attention, src/psa_triton/kernels/attn_pooling_kernel.py.
// Differs   float32 throughout (the source keeps block maxima in bf16, which reorders near ties).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "attention/pattern.h"
#include "attention/scorer.h"
#include "attention/site.h"

namespace strobe::attention {

// Sorted distinct in-block offsets, int64 [H, block/4]. A function of the site's seed, step, evaluation, layer and branch,
// of the head and of `stream`: the same call draws the same whatever was drawn before.
at::Tensor random_offsets(const AttentionSite& site, int64_t heads, int64_t block, uint64_t stream);
// 2, 6, 10 ...
at::Tensor strided_offsets(int64_t heads, int64_t block);

struct ImportanceInput {
  at::Tensor q;          // [1, H, N, D]
  at::Tensor k;          // [1, H, N, D]
  at::Tensor key_bias;   // [1, N] float32 in the order of k, or undefined
  at::Tensor q_offsets;  // int64 [H, query_block/4]
  at::Tensor k_offsets;  // int64 [H, key_block/4]
  int64_t query_block = 0;
  int64_t key_block = 0;
  PatternOrders orders;     // of blocks; null: as q and k lie
  bool is_softmax = false;  // the paper's score; else the public code's: relative to each query's largest
};

// [H, M, K] float32 on the CPU; rows are not normalised.
at::Tensor block_importance(const ImportanceInput& input, const Scorer& scorer);

}  // namespace strobe::attention
