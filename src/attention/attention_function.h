// The one attention call that a model makes, whoever answers it: the engine, or training with gradients around it.
//
// Contract  f(site, input) gives softmax(q k^T / sqrt(D) + key_bias) v in the order of the tokens given, [B, H, Nq, D].
#pragma once

#include <ATen/core/Tensor.h>

#include "attention/site.h"

namespace strobe::attention {

struct AttentionInput {
  at::Tensor q;         // [B, H, Nq, D] fp32 or bf16
  at::Tensor k;         // [B, Hk, Nk, D], Hk divides H
  at::Tensor v;         // [B, Hk, Nk, D]
  at::Tensor key_bias;  // [B, Nk] float32 or undefined; see AttentionProblem
};

class AttentionFunction {
 public:
  AttentionFunction() = default;
  AttentionFunction(const AttentionFunction&) = delete;
  AttentionFunction& operator=(const AttentionFunction&) = delete;
  virtual ~AttentionFunction() = default;
  virtual at::Tensor operator()(const AttentionSite& site, const AttentionInput& input) = 0;
};

}  // namespace strobe::attention
