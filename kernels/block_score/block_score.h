// What patterns ask about attention before they choose: softmax mass of blocks, and maxima of sampled scores.
//
// Both walk q k^T once with the tile kernels of block attention and never hold it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/types.h"

namespace strobe::kernels {

// mass[b, h, m, j] = sum of exp(min(scale q_i.k_t + bias_t - lse_i, 30)) over rows i of query block m and keys t of key
// block j (adaspa.md section 3 and 6.2). With the rows' own lse a row of masses sums to the rows of its block.
struct BlockMassParams {
  ScalarType dtype = ScalarType::kFloat32;
  int32_t batch = 0, heads = 0, key_heads = 0, query_tokens = 0, key_tokens = 0, head_dim = 0;
  TensorView q, k;
  double scale = 1.0;
  const float* key_bias = nullptr;  // [batch, key_tokens] or null; -inf hides a key
  const float* lse = nullptr;       // [batch, heads, query_tokens], natural log
  int32_t query_blocks = 0, key_blocks = 0;
  const int32_t* query_offsets = nullptr;  // [query_blocks + 1]
  const int32_t* key_offsets = nullptr;    // [key_blocks + 1]
  float* mass = nullptr;                   // [batch, heads, query_blocks, key_blocks]
  float* row_sum = nullptr;                // [batch, heads, query_tokens]: sum over all keys; null: not wanted
  Parallel parallel;
};

// maxima[b, h, i, j] = max over the keys t of key block j of scale q_i.k_t + bias_t (-inf for a block of hidden keys),
// row_sum_exp[b, h, i] = sum over all keys of exp(score - the row's largest score).
struct BlockMaxParams {
  ScalarType dtype = ScalarType::kFloat32;
  int32_t batch = 0, heads = 0, key_heads = 0, query_tokens = 0, key_tokens = 0, head_dim = 0;
  TensorView q, k;
  double scale = 1.0;
  const float* key_bias = nullptr;
  int32_t key_blocks = 0;
  const int32_t* key_offsets = nullptr;  // [key_blocks + 1]
  float* maxima = nullptr;               // [batch, heads, query_tokens, key_blocks]
  float* row_sum_exp = nullptr;          // [batch, heads, query_tokens]; null: not wanted
  Parallel parallel;
};

struct BlockScoreKernel {
  const char* name;  // block_score_fp32_avx2
  std::string (*refusal)(ScalarType dtype, int32_t head_dim);
  void (*mass)(const BlockMassParams& params);
  void (*maxima)(const BlockMaxParams& params);
};

// Best first; the last is `block_score_reference`.
const std::vector<BlockScoreKernel>& block_score_kernels();

}  // namespace strobe::kernels
