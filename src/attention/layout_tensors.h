// Layouts as tensors, for files.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "attention/pattern.h"
#include "core/block_layout.h"

namespace strobe::attention {

// query_offsets int32 [M+1], key_offsets int32 [K+1], and for each factor in use its bits, `plane1` ... `plane8`:
// int64 [heads, M, ceil(K/64)], lowest bit first.
std::map<std::string, at::Tensor> layout_tensors(const BlockLayout& layout);
// ShapeError where they are no layout.
LayoutPtr layout_from_tensors(const std::map<std::string, at::Tensor>& tensors);

// The layout of a dense call: one block.
LayoutPtr one_block(int64_t tokens);

// What files say of a call beside its levels: query_offsets, key_offsets, and q_order and k_order where the method orders.
void add_geometry(const BlockLayout& layout, const PatternOrders& orders, std::map<std::string, at::Tensor>& tensors);

// uint8 [heads, M, K]: 0 dropped, 1, 2, 4 or 8.
at::Tensor level_tensor(const BlockLayout& layout);

}  // namespace strobe::attention
