// PSA: from the importance of key blocks to how each is read (psa.md sections 4 and 5).
//
// Source    github ziplab/Pyramid-Sparse-Attention, src/psa_triton/utils/transfer_attn_to_mask.py, calc_k_similarity.
// Differs   equal importance: the smaller index first (the source's sort is unstable); a row never ends empty.
// Cost      a sort per row; 1.9 N D products per head for the caps.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "core/token_order.h"

namespace strobe::attention {

// Levels in the order of the factors 1, 2, 4, 8; what is ranked behind the last one is dropped.
struct PyramidLevels {
  bool is_quota = false;  // ends are shares of the blocks, else of the row's importance
  std::array<double, 4> ends = {0.5, 0.6, 0.7, 0.8};
  std::array<int64_t, 4> multiples = {1, 1, 1, 1};  // of which the number of blocks of a level is one
};

// The multiples that the source's kernel needs, which reads 32 keys at a time. `block_size` of at least 32.
std::array<int64_t, 4> parity_multiples(int64_t block_size);

// Factors 0, 1, 2, 4 or 8 of one row; `importance` need not sum to one.
void assign_levels(const float* importance, int64_t blocks, const PyramidLevels& levels, uint8_t* factors);

// The largest factor each key block may be pooled by: 1, 2, 4 or 8, as uint8 [H, K] on the CPU. k [1, H, N, D], block
// sizes divisible by 8, thresholds for the factors 2, 4, 8. A short last block is continued by its last token. Blocks
// are runs of places of `order`; null: of tokens.
at::Tensor similarity_caps(const at::Tensor& k, const TokenOrder* order, int64_t block_size,
                           const std::array<double, 3>& thresholds);

}  // namespace strobe::attention
