// AdaSpa: which key blocks to keep, given their exact softmax mass (adaspa.md section 5).
//
// Contract  A row keeps its blocks of largest mass, equal ones by index; heads that lose little keep fewer, as many of
//           the heads that lose most keep more, and the mean sparsity stays. Text blocks are kept beyond the budget, text
//           rows keep every block.
// Differs   from the paper: at most half of the heads give, and below a sparsity of 1/3 the shares are clamped.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "attention/text_blocks.h"
#include "core/block_layout.h"

namespace strobe::attention {

struct MassRule {
  double sparsity = 0.8;  // share of the video blocks that a row drops, on average over the heads
  double recall = 0.8;    // heads that keep more than this share of the mass may drop more
  bool is_by_mass = false;
  double theta = 0.99;  // by mass: share of its mass that every row keeps, whatever that takes
};

struct MassBlocks {
  at::Tensor mass;  // [H, M, K] float32 on the CPU, contiguous
  BlockRange video_rows;
  BlockRange video_cols;
};

// Blocks of `blocks` that a sparsity leaves: at least 1; halves are rounded up on every machine.
int64_t kept_of(int64_t blocks, double sparsity);

// Share of the mass of its video rows that each head keeps with `count` video blocks a row, and the text.
std::vector<double> head_recalls(const MassBlocks& blocks, int64_t count);

std::vector<double> head_sparsities(const std::vector<double>& recalls, const MassRule& rule);

// `layout` is empty.
void select_by_mass(const MassBlocks& blocks, const MassRule& rule, BlockLayout& layout);

}  // namespace strobe::attention
