// Gradients of the block-sparse attention that the engine computed, recomputed from its log-sum-exps.
//
// Contract  dQ, dK and dV of out = softmax(scale q k^T + key_bias) v over the pairs that each head's plan keeps, pooled
//           levels and hidden keys as kernels/block_attention/block_attention.h defines them. No gradient of the bias.
//           Pairs are gathered into dense blocks: query blocks that keep equal keys together, or, where there are more
//           query blocks than key blocks and none is pooled, the queries of key blocks that are kept by equal queries.
// Numbers   float32, whatever the dtype of the tensors. The same bits again with the same number of threads; LibTorch's
//           products promise no more.
// Memory    float32 copies of q, k, v and dO, the gradients, and per thread two tiles of scores. The scores of a call
//           are held where it is dense and they are few (16 MiB).
// Source    the recomputing backward pass of FlashAttention-2 (arXiv 2307.08691).
// Errors    UnsupportedError for tensors that are not on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "attention/pattern.h"

namespace strobe::training {

// What one head of one batch row kept.
struct HeadPlan {
  LayoutPtr layout;  // null: dense
  int64_t layout_head = 0;
  attention::PoolingRule pooling;
  attention::PatternOrders orders;  // of the layout's tokens
};

struct AttentionRecord {
  at::Tensor q;                 // [B, H, Nq, D]
  at::Tensor k;                 // [B, Hk, Nk, D], Hk divides H
  at::Tensor v;                 // [B, Hk, Nk, D]
  at::Tensor key_bias;          // [B, Nk] float32 or undefined
  at::Tensor out;               // [B, H, Nq, D]
  at::Tensor lse;               // [B, H, Nq] float32, natural log
  std::vector<HeadPlan> plans;  // [B * H]; empty: all dense
};

struct AttentionGradients {
  at::Tensor q, k, v;  // shapes and dtypes of what they belong to
};

AttentionGradients attention_gradients(const AttentionRecord& record, const at::Tensor& grad_out);

}  // namespace strobe::training
