// What a pattern may ask about softmax attention before it chooses: runs on the device of q, never holds q k^T.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace strobe::attention {

struct ScoreInput {
  at::Tensor q;         // [B, H, Nq, D]
  at::Tensor k;         // [B, Hk, Nk, D], Hk divides H
  at::Tensor key_bias;  // [B, Nk] float32 or undefined; -inf hides a key
  double scale = 0;     // of q.k; 0: 1/sqrt(D)
};

struct BlockMass {
  at::Tensor mass;     // [B, H, M, K] float32, sums of softmax weights (adaspa.md section 3)
  at::Tensor row_sum;  // [B, H, Nq] float32, of all keys; undefined unless asked for
};

// Tokens that stand for the blocks they lie in, each head's own.
struct BlockSamples {
  at::Tensor tokens;  // int32 [H, blocks * count] on the CPU
  int64_t count = 0;  // of a block
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual std::string name() const = 0;  // of the kernel
  // [B, H, Nq] float32, natural log of the softmax denominators.
  virtual at::Tensor row_lse(const ScoreInput& input) const = 0;
  // Weights are exp(score - lse); with the rows' own lse they are the softmax.
  virtual BlockMass block_mass(const ScoreInput& input, const at::Tensor& lse,
                               const std::vector<int32_t>& query_offsets, const std::vector<int32_t>& key_offsets,
                               bool wants_row_sum) const = 0;
  // [H, M, K] float32 on the CPU: how near the best of a query block's samples come to their largest score with the
  // samples of a key block; kernels/block_score/block_score.h. One batch row, a key head for each head.
  virtual at::Tensor block_importance(const ScoreInput& input, const BlockSamples& queries, const BlockSamples& keys,
                                      bool is_softmax) const = 0;
};

}  // namespace strobe::attention
