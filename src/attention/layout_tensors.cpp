#include "attention/layout_tensors.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"

namespace strobe::attention {
namespace {

std::vector<int32_t> to_vector(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kInt).contiguous();
  return {flat.data_ptr<int32_t>(), flat.data_ptr<int32_t>() + flat.numel()};
}

at::Tensor int_tensor(const std::vector<int32_t>& values) { return at::tensor(values, at::kInt); }

}  // namespace

LayoutPtr one_block(int64_t tokens) {
  const auto end = static_cast<int32_t>(tokens);
  return std::make_shared<const BlockLayout>(BlockLayout::full({0, end}, {0, end}));
}

void add_geometry(const BlockLayout& layout, const PatternOrders& orders, std::map<std::string, at::Tensor>& tensors) {
  tensors.emplace("query_offsets", int_tensor(layout.query_offsets()));
  tensors.emplace("key_offsets", int_tensor(layout.key_offsets()));
  if (orders.q) tensors.emplace("q_order", int_tensor(orders.q->raster()));
  if (orders.k) tensors.emplace("k_order", int_tensor(orders.k->raster()));
}

at::Tensor level_tensor(const BlockLayout& layout) {
  at::Tensor level = at::zeros({layout.heads(), layout.query_blocks(), layout.key_blocks()}, at::kByte);
  auto* at_row = level.data_ptr<uint8_t>();
  for (int64_t head = 0; head < layout.heads(); ++head) {
    for (int64_t row = 0; row < layout.query_blocks(); ++row) {
      for (int64_t col = 0; col < layout.key_blocks(); ++col) {
        *at_row++ = static_cast<uint8_t>(layout.factor(head, row, col));
      }
    }
  }
  return level;
}

std::map<std::string, at::Tensor> layout_tensors(const BlockLayout& layout) {
  std::map<std::string, at::Tensor> tensors = {{"query_offsets", int_tensor(layout.query_offsets())},
                                               {"key_offsets", int_tensor(layout.key_offsets())}};
  for (const int factor : {1, 2, 4, 8}) {
    const std::vector<uint64_t>& bits = layout.plane(factor);
    if (bits.empty()) continue;
    at::Tensor plane = at::empty({layout.heads(), layout.query_blocks(), layout.words()}, at::kLong);
    std::memcpy(plane.data_ptr(), bits.data(), bits.size() * sizeof(uint64_t));
    tensors.emplace(fmt::format("plane{}", factor), plane);
  }
  return tensors;
}

LayoutPtr layout_from_tensors(const std::map<std::string, at::Tensor>& tensors) {
  for (const char* name : {"query_offsets", "key_offsets", "plane1"}) {
    STROBE_CHECK(tensors.contains(name), "layout: no tensor '{}'", name);
  }
  const at::Tensor& first = tensors.at("plane1");
  STROBE_CHECK(first.dim() == 3 && first.size(0) > 0, "layout: plane1: expected [heads, M, words]");
  auto layout = std::make_shared<BlockLayout>(first.size(0), to_vector(tensors.at("query_offsets")),
                                              to_vector(tensors.at("key_offsets")));
  for (const int factor : {1, 2, 4, 8}) {
    const auto found = tensors.find(fmt::format("plane{}", factor));
    if (found == tensors.end()) continue;
    const at::Tensor plane = found->second.contiguous();
    STROBE_CHECK(plane.scalar_type() == at::kLong && plane.dim() == 3 && plane.size(0) == layout->heads() &&
                     plane.size(1) == layout->query_blocks() && plane.size(2) == layout->words(),
                 "layout: plane{}: expected int64 [{}, {}, {}]", factor, layout->heads(), layout->query_blocks(),
                 layout->words());
    const auto* bits = static_cast<const uint64_t*>(plane.const_data_ptr());
    layout->set_plane(factor, {bits, bits + plane.numel()});
  }
  layout->validate(/*allows_empty_rows=*/true);
  return layout;
}

}  // namespace strobe::attention
