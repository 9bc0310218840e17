// One attention computation, as a backend sees it: tensors and numbers, no model and no method.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "attention/pattern.h"
#include "core/block_layout.h"

namespace strobe::attention {

// Masks and positions are the caller's business; `key_bias` carries what is left of them.
struct AttentionProblem {
  at::Tensor q;         // [B, H, Nq, D]
  at::Tensor k;         // [B, Hk, Nk, D], Hk divides H
  at::Tensor v;         // [B, Hk, Nk, D]
  at::Tensor key_bias;  // [B, Nk] float32 added to every logit of a key, natural log; -inf hides a key; undefined: none
  double scale = 0;     // of q.k, usually 1/sqrt(D)
  const BlockLayout* layout = nullptr;  // null: dense. One for all batch rows; heads 1 or H
  PatternOrders
      orders;  // of the layout's blocks: runs of places, at place p token raster()[p]. Tensors stay as they lie
  PoolingRule pooling;
  bool wants_lse = false;
};

struct AttentionOutput {
  at::Tensor out;  // [B, H, Nq, D], dtype of q; where it is given, any strides with D contiguous, it is written to
  at::Tensor lse;  // [B, H, Nq] float32, natural log; undefined unless asked for
};

}  // namespace strobe::attention
