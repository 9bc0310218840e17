// Layouts as tensors, for files.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "core/block_layout.h"

namespace strobe::attention {

// query_offsets int32 [M+1], key_offsets int32 [K+1], and for each factor in use its bits, `plane1` ... `plane8`:
// int64 [heads, M, ceil(K/64)], lowest bit first.
std::map<std::string, at::Tensor> layout_tensors(const BlockLayout& layout);
// ShapeError where they are no layout.
LayoutPtr layout_from_tensors(const std::map<std::string, at::Tensor>& tensors);

// uint8 [heads, M, K]: 0 dropped, 1, 2, 4 or 8.
at::Tensor level_tensor(const BlockLayout& layout);

}  // namespace strobe::attention
