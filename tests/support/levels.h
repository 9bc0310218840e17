// Layouts as tensors, and their digests in golden tables.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/block_layout.h"

namespace strobe::test {

// [heads, M, K] uint8: 0 dropped, 1, 2, 4, 8.
at::Tensor levels(const BlockLayout& layout);

// CRC-32 (zlib's) of the elements' bytes in row-major order.
uint32_t crc32(const at::Tensor& tensor);

// softmax(q k^T / sqrt(D)) v in float64 over the pairs that an unpooled layout keeps, [1, H, N, D].
at::Tensor masked_attention(const BlockLayout& layout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace strobe::test
