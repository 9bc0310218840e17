// What patterns ask about attention before they choose: softmax mass of blocks, and importance of blocks from samples.
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

// importance[h, m, j] = max over the samples i of query block m of exp(the largest score of i with the samples of key
// block j - the largest score of i) (psa.md section 3), and 1 where that is above kAlmostLargest. With `is_softmax`
// divided by sum over all sampled keys of exp(score - the largest), and left as it is. Score: scale q_i.k_t + bias_t;
// -inf hides a key, whose k is not read, and +inf makes it the largest. 0 for a block without a visible sample; a query
// without one counts for nothing.
//
// Each head has samples of its own, the same number in every block; a token may be named more than once.
struct BlockImportanceParams {
  ScalarType dtype = ScalarType::kFloat32;
  int32_t heads = 0, head_dim = 0;  // of q and of k
  TensorView q, k;                  // one batch row
  double scale = 1.0;
  const float* key_bias = nullptr;  // of each token of k, for all heads; or null
  int32_t query_blocks = 0, query_samples = 0, key_blocks = 0, key_samples = 0;
  const int32_t* query_tokens = nullptr;  // [heads, query_blocks, query_samples]
  const int32_t* key_tokens = nullptr;    // [heads, key_blocks, key_samples]
  bool is_softmax = false;
  float* importance = nullptr;  // [heads, query_blocks, key_blocks]
  Parallel parallel;
};

constexpr double kAlmostLargest = 1 - 1e-6;  // rounding between products of one score

struct BlockScoreKernel {
  const char* name;  // block_score_fp32_avx2
  std::string (*refusal)(ScalarType dtype, int32_t head_dim);
  void (*mass)(const BlockMassParams& params);
  void (*importance)(const BlockImportanceParams& params);
};

// Best first; the last is `block_score_reference`.
const std::vector<BlockScoreKernel>& block_score_kernels();

}  // namespace strobe::kernels
