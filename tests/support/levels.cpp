#include "tests/support/levels.h"

#include <array>
#include <cmath>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"

namespace strobe::test {
namespace {

at::Tensor block_lengths(const std::vector<int32_t>& offsets) {
  return at::tensor(offsets, at::kInt).to(at::kLong).diff();
}

}  // namespace

at::Tensor levels(const BlockLayout& layout) {
  at::Tensor result = at::zeros({layout.heads(), layout.query_blocks(), layout.key_blocks()}, at::kByte);
  auto* level = result.data_ptr<uint8_t>();
  for (int64_t head = 0; head < layout.heads(); ++head) {
    for (int64_t row = 0; row < layout.query_blocks(); ++row) {
      for (int64_t col = 0; col < layout.key_blocks(); ++col) {
        *level++ = static_cast<uint8_t>(layout.factor(head, row, col));
      }
    }
  }
  return result;
}

uint32_t crc32(const at::Tensor& tensor) {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
    table[byte] = crc;
  }
  const at::Tensor bytes = tensor.contiguous();
  const auto* data = static_cast<const uint8_t*>(bytes.data_ptr());
  uint32_t crc = ~0U;
  for (size_t i = 0; i < bytes.nbytes(); ++i) crc = (crc >> 8) ^ table[(crc ^ data[i]) & 0xFFU];
  return ~crc;
}

at::Tensor masked_attention(const BlockLayout& layout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  STROBE_CHECK(!layout.has_pooled_pairs(), "masked attention of a layout with pooled pairs");
  const at::Tensor mask = levels(layout)
                              .to(at::kBool)
                              .repeat_interleave(block_lengths(layout.query_offsets()), 1)
                              .repeat_interleave(block_lengths(layout.key_offsets()), 2);
  const at::Tensor scores =
      at::matmul(q.to(at::kDouble), k.to(at::kDouble).transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
  return at::matmul(at::softmax(scores.masked_fill(mask.logical_not(), -INFINITY), 3), v.to(at::kDouble));
}

}  // namespace strobe::test
