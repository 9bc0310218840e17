// The order in which a pattern wants the tokens of a grid, and the orders that patterns share.
//
// Contract  A permutation of all tokens: `raster()[p]` is the raster index (TokenGrid::index, text included) of the
//           token at position p. Every order here puts the text behind the video, whatever end it came from.
// Sources   tiles: VMoBA, arXiv 2506.23858, section 3.2 (blocks of whole frames, windows over all frames, boxes).
//           gilbert: the generalised Hilbert walk of github jakubcerveny/gilbert, as PSA (arXiv 2512.04025) uses it.
// Errors    ShapeError where a list is no permutation; ConfigError for tiles that are not positive.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/token_grid.h"

namespace strobe {

class TokenOrder {
 public:
  explicit TokenOrder(std::vector<int32_t> raster);

  int64_t size() const { return static_cast<int64_t>(raster_.size()); }
  const std::vector<int32_t>& raster() const { return raster_; }  // [N], raster index at each position
  std::vector<int32_t> positions() const;                         // [N], position of each raster index
  bool is_identity() const;

 private:
  std::vector<int32_t> raster_;
};

// An order whose positions fall into blocks.
struct TiledOrder {
  std::shared_ptr<const TokenOrder> order;
  std::vector<int32_t> offsets;  // [C + 1], first position of each video block; the last is the number of video tokens
};

// Boxes of `frames` x `rows` x `cols` patches, box by box (frame, row, column), patches inside a box likewise. Boxes at
// the far borders are smaller. A box as large as an axis is one box along it.
TiledOrder tile_order(const TokenGrid& grid, int64_t frames, int64_t rows, int64_t cols);

// Raster order cut into runs of `tokens` video tokens, the last one shorter.
TiledOrder run_order(const TokenGrid& grid, int64_t tokens);

// The generalised Hilbert walk over columns x rows x frames.
std::shared_ptr<const TokenOrder> gilbert_order(const TokenGrid& grid);

// Raster order with the text last.
std::shared_ptr<const TokenOrder> raster_order(const TokenGrid& grid);

}  // namespace strobe
