// Block-sparse attention forward: out = softmax(scale q k^T + bias) v over the key blocks that a layout keeps.
//
// Contract  Query block m of head h reads key block j iff bit j of row m is set in one plane of the layout. Plane p
//           holds pairs whose keys and values are means of 2^p consecutive tokens of the block; a pair sits in at most
//           one plane. Blocks are runs of tokens of any length, query blocks may be single tokens; nothing is rounded.
//           No layout: every pair, computed by the same code. A query row that keeps nothing: out 0, lse -inf.
// Order     With `query_order` and `key_order` the layout's blocks are runs of places, and place p is held by token
//           order[p]: tokens need not be moved. out, lse, row_scale and key_bias stay by token.
// Pooling   A pooled row of factor f stands for its c members (c = f but at the end of a block): its logit gets ln(c)
//           unless `has_multiplicity_bias` is off. `replicates_tail` extends a short last block by copies of its last
//           token to `replicated_size` tokens, and counts the copies (what the public code of PSA does).
// Bias      `key_bias` [batch, key_tokens] fp32, natural log, added to a key's logits; -inf hides the key: it is then no
//           member of any pooled row and its k and v are not read for their values. Pooled planes take no other bias.
// Precision scores, softmax and sums in fp32; bf16 kernels round p and the operands of the products to bf16.
// Numbers   tolerances: kernels/README.md. Deterministic: the same bits for any number of workers.
// Memory    scratch belongs to the calling threads and is kept; no allocation in steady state.
// Source    online softmax as in FlashAttention-2 (arXiv 2307.08691); pooled levels: PSA (arXiv 2512.04025).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/types.h"

namespace strobe::kernels {

// Which key blocks each query block reads. A view; src/core/block_layout.h owns the arrays.
struct BlockLayoutView {
  int32_t heads = 1;                       // 1: shared by all heads
  int32_t query_blocks = 0;                // M
  int32_t key_blocks = 0;                  // K
  int32_t words = 0;                       // of a row: ceil(K / 64)
  const int32_t* query_offsets = nullptr;  // [M + 1], first token of each block
  const int32_t* key_offsets = nullptr;    // [K + 1]
  const uint64_t* planes[4] = {nullptr, nullptr, nullptr,
                               nullptr};  // factor 1, 2, 4, 8: [heads, M, words]; null: empty
};

struct BlockAttentionParams {
  ScalarType dtype = ScalarType::kFloat32;  // of q, k, v and out
  int32_t batch = 0;
  int32_t heads = 0;
  int32_t key_heads = 0;  // divides heads: query head h reads key head h / (heads / key_heads)
  int32_t query_tokens = 0;
  int32_t key_tokens = 0;
  int32_t head_dim = 0;  // 1 .. 256
  TensorView q, k, v;    // v.data null: only lse is computed
  MutableTensorView out;
  float* lse = nullptr;                     // [batch, heads, query_tokens], natural log, contiguous; null: not wanted
  double scale = 1.0;                       // of q.k
  const float* row_scale = nullptr;         // [query_tokens], multiplies `scale` row by row; null: 1
  const float* key_bias = nullptr;          // [batch, key_tokens]; null: none
  const BlockLayoutView* layout = nullptr;  // null: dense. The same for all batch rows
  const int32_t* query_order = nullptr;     // [query_tokens], a permutation; null: place p is token p
  const int32_t* key_order = nullptr;       // [key_tokens], likewise
  bool has_multiplicity_bias = true;
  bool replicates_tail = false;
  int32_t replicated_size = 0;
  Parallel parallel;
};

struct BlockAttentionKernel {
  const char* name;  // block_attention_fp32_avx2: the same string in code, record, report and test
  // Empty: can run this here. Otherwise the reason in a sentence («needs AVX-512»).
  std::string (*refusal)(const BlockAttentionParams& params);
  void (*run)(const BlockAttentionParams& params);
};

// Best first; rows not compiled in are absent. `block_attention_reference` is the last and refuses nothing.
const std::vector<BlockAttentionKernel>& block_attention_kernels();

// Rows of q that belong to kept pairs times their keys (pooled rows count one each), all heads of one batch row.
double count_pairs(const BlockAttentionParams& params);

}  // namespace strobe::kernels
