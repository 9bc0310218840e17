#include "kernels/block_attention/tile_buffers.h"

#include <algorithm>

namespace strobe::kernels {

Tile TileBuffers::prepare(const TileOps& ops, const RecordShape& shape, int64_t extra) {
  constexpr int64_t kLine = 64;
  int64_t bytes = 0;
  const auto take = [&](int64_t size) {
    const int64_t at = bytes;
    bytes += (size + kLine - 1) / kLine * kLine;
    return at;
  };
  const int64_t q = take(int64_t{kTileRows} * (shape.head_dim + 1) * 4 + kLine);  // the last store of packing runs over
  const int64_t scale = take(int64_t{kTileRows} * 4);
  const int64_t s = take(int64_t{kTileRows} * kScoreStride * 4);
  const int64_t m = take(int64_t{kTileRows} * 4);
  const int64_t l = take(int64_t{kTileRows} * ops.lanes * 4);
  const int64_t o = take(int64_t{kTileRows} * kPanel * shape.panels * 4);
  const int64_t wide = take(int64_t{kTileRows} * shape.head_dim * 4);
  const int64_t rest = take(extra);
  char* base = static_cast<char*>(memory_.reserve(bytes));
  wide_ = reinterpret_cast<float*>(base + wide);
  extra_ = base + rest;
  Tile tile;
  tile.shape = shape;
  tile.q = base + q;
  tile.scale = reinterpret_cast<float*>(base + scale);
  tile.s = reinterpret_cast<float*>(base + s);
  tile.m = reinterpret_cast<float*>(base + m);
  tile.l = reinterpret_cast<float*>(base + l);
  tile.o = reinterpret_cast<float*>(base + o);
  return tile;
}

void TileBuffers::pack_queries(const TileOps& ops, ScalarType dtype, const void* q, int64_t token_stride,
                               const int32_t* tokens, const float* scales, const Tile& tile) {
  const float* rows[kTileRows];
  for (int i = 0; i < tile.rows; ++i) {
    const int64_t at = tokens[i] * token_stride;
    if (dtype == ScalarType::kFloat32) {
      rows[i] = static_cast<const float*>(q) + at;
    } else {
      float* row = wide_ + int64_t{i} * tile.shape.head_dim;
      ops.widen(static_cast<const uint16_t*>(q) + at, row, tile.shape.head_dim);
      rows[i] = row;
    }
  }
  ops.pack_queries(rows, scales, tile);
}

void clear_state(const TileOps& ops, const Tile& tile) {
  std::fill_n(tile.m, kTileRows, kLowestMaximum);
  std::fill_n(tile.l, kTileRows * ops.lanes, 0.0F);
  for (int panel = 0; panel < tile.shape.panels; ++panel) {
    std::fill_n(tile.o + int64_t{panel} * kTileRows * kPanel, tile.rows * kPanel, 0.0F);
  }
}

}  // namespace strobe::kernels
