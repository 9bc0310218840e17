// Joins overlapping tiles row by row, cross-fading each with the tile above and the tile on its left.
//
// Contract  Tiles arrive in reading order. A tile is blended first with the one above, then with the one on its left,
//           both already blended and not cropped; then its leading stride x stride part is placed. Linear weights y /
//           extent.
// Shapes    tiles and result [F, R, W, C]; edge tiles may be smaller.
// Source    diffusers AutoencoderKLWan.tiled_decode.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace strobe::models {

class TileBlend {
 public:
  struct Sizes {
    int64_t rows = 0;  // of the result
    int64_t cols = 0;
    int64_t stride = 0;  // from tile to tile, both axes
    int64_t extent = 0;  // pixels that are blended
  };
  explicit TileBlend(const Sizes& sizes) : sizes_(sizes) {}

  void add(at::Tensor tile);
  const at::Tensor& result() const { return result_; }

 private:
  Sizes sizes_;
  at::Tensor result_;
  std::vector<at::Tensor> above_, row_;
  int64_t row_begin_ = 0, col_begin_ = 0;
};

}  // namespace strobe::models
