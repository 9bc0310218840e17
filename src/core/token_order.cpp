#include "core/token_order.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>

#include "core/error.h"

namespace strobe {
namespace {

void append_text(const TokenGrid& grid, std::vector<int32_t>& raster) {
  const int64_t first = grid.is_text_first ? 0 : grid.video_tokens();
  for (int64_t i = 0; i < grid.text_tokens; ++i) raster.push_back(static_cast<int32_t>(first + i));
}

using Vector = std::array<int64_t, 3>;  // column, row, frame

Vector operator+(const Vector& a, const Vector& b) { return {a[0] + b[0], a[1] + b[1], a[2] + b[2]}; }
Vector operator-(const Vector& a, const Vector& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Vector operator-(const Vector& a) { return {-a[0], -a[1], -a[2]}; }
int64_t length(const Vector& v) { return std::abs(v[0] + v[1] + v[2]); }

int64_t sign(int64_t value) { return (value > 0 ? 1 : 0) - (value < 0 ? 1 : 0); }
Vector unit(const Vector& v) { return {sign(v[0]), sign(v[1]), sign(v[2])}; }
// Toward minus infinity: another rounding walks another curve on many grids.
Vector half(const Vector& v) { return {v[0] >> 1, v[1] >> 1, v[2] >> 1}; }

class GilbertWalk {
 public:
  explicit GilbertWalk(const TokenGrid& grid) : grid_(grid) {
    raster_.reserve(static_cast<size_t>(grid.tokens()));
    const int64_t cols = grid.cols, rows = grid.rows, frames = grid.frames;
    const Vector x{cols, 0, 0}, y{0, rows, 0}, t{0, 0, frames};
    if (cols >= rows && cols >= frames) {
      walk({0, 0, 0}, x, y, t);
    } else if (rows >= cols && rows >= frames) {
      walk({0, 0, 0}, y, x, t);
    } else {
      walk({0, 0, 0}, t, x, y);
    }
  }
  std::vector<int32_t> take() { return std::move(raster_); }

 private:
  void line(Vector at, const Vector& step, int64_t cells) {
    for (int64_t i = 0; i < cells; ++i, at = at + step) {
      raster_.push_back(static_cast<int32_t>(grid_.index(at[2], at[1], at[0])));
    }
  }

  static Vector cut(const Vector& edge, int64_t cells) {
    const Vector piece = half(edge);
    return length(piece) % 2 != 0 && cells > 2 ? piece + unit(edge) : piece;
  }

  // The box at `origin` with the edges a (along which the walk goes), b and c; ends beside the far end of a.
  // NOLINTNEXTLINE(misc-no-recursion): as deep as the logarithm of the longest edge.
  void walk(const Vector& origin, const Vector& a, const Vector& b, const Vector& c) {
    const int64_t la = length(a), lb = length(b), lc = length(c);
    const Vector ua = unit(a), ub = unit(b), uc = unit(c);
    if (lb == 1 && lc == 1) return line(origin, ua, la);
    if (la == 1 && lc == 1) return line(origin, ub, lb);
    if (la == 1 && lb == 1) return line(origin, uc, lc);
    const Vector a2 = cut(a, la), b2 = cut(b, lb), c2 = cut(c, lc);
    if (2 * la > 3 * lb && 2 * la > 3 * lc) {  // long: only a is cut
      walk(origin, a2, b, c);
      walk(origin + a2, a - a2, b, c);
    } else if (3 * lb > 4 * lc) {  // c stays whole
      walk(origin, b2, c, a2);
      walk(origin + b2, a, b - b2, c);
      walk(origin + (a - ua) + (b2 - ub), -b2, c, -(a - a2));
    } else if (3 * lc > 4 * lb) {  // b stays whole
      walk(origin, c2, a2, b);
      walk(origin + c2, a, b, c - c2);
      walk(origin + (a - ua) + (c2 - uc), -c2, -(a - a2), b);
    } else {
      walk(origin, b2, c2, a2);
      walk(origin + b2, c, a2, b - b2);
      walk(origin + (b2 - ub) + (c - uc), a, -b2, -(c - c2));
      walk(origin + (a - ua) + b2 + (c - uc), -c, -(a - a2), b - b2);
      walk(origin + (a - ua) + (b2 - ub), -b2, c2, -(a - a2));
    }
  }

  const TokenGrid& grid_;
  std::vector<int32_t> raster_;
};

}  // namespace

TokenOrder::TokenOrder(std::vector<int32_t> raster) : raster_(std::move(raster)) {
  std::vector<bool> is_seen(raster_.size());
  for (const int32_t token : raster_) {
    STROBE_CHECK(token >= 0 && token < size() && !is_seen[static_cast<size_t>(token)],
                 "token order: {} twice or outside {} tokens", token, size());
    is_seen[static_cast<size_t>(token)] = true;
  }
}

std::vector<int32_t> TokenOrder::positions() const {
  std::vector<int32_t> positions(raster_.size());
  for (size_t p = 0; p < raster_.size(); ++p) positions[static_cast<size_t>(raster_[p])] = static_cast<int32_t>(p);
  return positions;
}

bool TokenOrder::is_identity() const {
  for (size_t p = 0; p < raster_.size(); ++p) {
    if (raster_[p] != static_cast<int32_t>(p)) return false;
  }
  return true;
}

TiledOrder tile_order(const TokenGrid& grid, int64_t frames, int64_t rows, int64_t cols) {
  if (frames < 1 || rows < 1 || cols < 1) {
    throw ConfigError(fmt::format("tiles of {}x{}x{} patches: every side has to be at least 1", frames, rows, cols));
  }
  std::vector<int32_t> raster, offsets = {0};
  raster.reserve(static_cast<size_t>(grid.tokens()));
  for (int64_t f0 = 0; f0 < grid.frames; f0 += frames) {
    for (int64_t r0 = 0; r0 < grid.rows; r0 += rows) {
      for (int64_t c0 = 0; c0 < grid.cols; c0 += cols) {
        for (int64_t f = f0; f < std::min(f0 + frames, grid.frames); ++f) {
          for (int64_t r = r0; r < std::min(r0 + rows, grid.rows); ++r) {
            for (int64_t c = c0; c < std::min(c0 + cols, grid.cols); ++c) {
              raster.push_back(static_cast<int32_t>(grid.index(f, r, c)));
            }
          }
        }
        offsets.push_back(static_cast<int32_t>(raster.size()));
      }
    }
  }
  append_text(grid, raster);
  return {.order = std::make_shared<const TokenOrder>(std::move(raster)), .offsets = std::move(offsets)};
}

TiledOrder run_order(const TokenGrid& grid, int64_t tokens) {
  if (tokens < 1) throw ConfigError(fmt::format("blocks of {} tokens: expected at least 1", tokens));
  std::vector<int32_t> offsets;
  for (int64_t first = 0; first < grid.video_tokens(); first += tokens) offsets.push_back(static_cast<int32_t>(first));
  offsets.push_back(static_cast<int32_t>(grid.video_tokens()));
  return {.order = raster_order(grid), .offsets = std::move(offsets)};
}

std::shared_ptr<const TokenOrder> gilbert_order(const TokenGrid& grid) {
  std::vector<int32_t> raster = GilbertWalk(grid).take();
  append_text(grid, raster);
  return std::make_shared<const TokenOrder>(std::move(raster));
}

std::shared_ptr<const TokenOrder> raster_order(const TokenGrid& grid) {
  std::vector<int32_t> raster(static_cast<size_t>(grid.video_tokens()));
  std::iota(raster.begin(), raster.end(), static_cast<int32_t>(grid.first_video_token()));
  append_text(grid, raster);
  return std::make_shared<const TokenOrder>(std::move(raster));
}

}  // namespace strobe
