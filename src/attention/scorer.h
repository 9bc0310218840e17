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

struct BlockMaxima {
  at::Tensor maxima;       // [B, H, Nq, K] float32, largest scaled score of each query with each key block
  at::Tensor row_sum_exp;  // [B, H, Nq] float32, sum over the keys of exp(score - row maximum); undefined unless asked
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
  virtual BlockMaxima block_maxima(const ScoreInput& input, const std::vector<int32_t>& key_offsets,
                                   bool wants_row_sum) const = 0;
};

}  // namespace strobe::attention
