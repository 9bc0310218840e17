#include "models/vae/tile_blend.h"

#include "core/torch.h"

namespace strobe::models {
namespace {

// Fades the leading edge of `tile` along `axis` from the trailing edge of `before`.
void blend_edge(const at::Tensor& before, const at::Tensor& tile, int64_t axis, int64_t extent) {
  const int64_t width = std::min({extent, before.size(axis), tile.size(axis)});
  if (width <= 0) return;
  std::vector<int64_t> shape(tile.dim(), 1);
  shape[axis] = width;
  const at::Tensor weight = (at::arange(width, tile.options()) / static_cast<double>(width)).view(shape);
  const at::Tensor edge = tile.narrow(axis, 0, width);
  edge.copy_(before.narrow(axis, before.size(axis) - width, width) * (1 - weight) + edge * weight);
}

}  // namespace

void TileBlend::add(at::Tensor tile) {
  if (!result_.defined()) result_ = at::empty({tile.size(0), sizes_.rows, sizes_.cols, tile.size(3)}, tile.options());
  if (row_begin_ > 0) blend_edge(above_.at(row_.size()), tile, 1, sizes_.extent);
  if (!row_.empty()) blend_edge(row_.back(), tile, 2, sizes_.extent);
  const int64_t rows = std::min({sizes_.stride, tile.size(1), sizes_.rows - row_begin_});
  const int64_t cols = std::min({sizes_.stride, tile.size(2), sizes_.cols - col_begin_});
  result_.narrow(1, row_begin_, rows).narrow(2, col_begin_, cols).copy_(tile.narrow(1, 0, rows).narrow(2, 0, cols));
  row_.push_back(std::move(tile));
  col_begin_ += sizes_.stride;
  if (col_begin_ < sizes_.cols) return;
  col_begin_ = 0;
  row_begin_ += sizes_.stride;
  above_ = std::move(row_);
  row_.clear();
}

}  // namespace strobe::models
