// Chooses key blocks for single query tokens from gates: the best ones, or those that reach a share of the gates' mass.
//
// Contract  The query's own block is always kept and counts in both rules. Entries (block c, head h, query n) compete
//           within a group: those of one query and head, of one head, of one block, or all of them. Ties go to the
//           smaller (c * H + h) * S + n. The result is that of sorting each group, without sorting it: a histogram
//           finds the bin of the cut, and only its entries are looked at again. Sums are in double, and one thread cuts
//           a group, so that the result does not depend on their number.
// Source    VMoBA, arXiv 2506.23858, and its public code.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/block_layout.h"

namespace strobe::attention {

enum class GatePool { kLocal, kGlobal, kBlock, kOverall };

struct GateRule {
  GatePool pool = GatePool::kLocal;
  bool is_threshold = false;
  int64_t topk = 0;  // blocks a query, its own included; at least 1
  double tau = 0;    // share of the min-max normalised gates of a group that own and chosen entries reach
};

// Sets the bits of heads [first_head, first_head + H) of `layout`, whose first S rows are the queries and whose first C
// key blocks hold the same tokens. kBlock and kOverall need all heads at once.
void select_by_gates(
    const at::Tensor& gates,  // [H, C, S] float32 on the CPU, of finite range; fastest where kLocal gets it with C
                              // innermost, the other pools with S innermost
    const std::vector<int32_t>& block_offsets,  // [C + 1], the last is S
    const GateRule& rule, int64_t first_head, BlockLayout& layout);

}  // namespace strobe::attention
