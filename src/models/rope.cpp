#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "models/rope.h"

namespace strobe::models {
namespace {

// [positions, width / 2] angles in float64.
at::Tensor axis_angles(int64_t positions, int64_t width) {
  at::Tensor exponent = at::arange(0, width, 2, at::kDouble) / static_cast<double>(width);
  at::Tensor frequencies = at::pow(10000.0, exponent).reciprocal();
  return at::outer(at::arange(positions, at::kDouble), frequencies);
}

}  // namespace

RopeTables make_rope_3d(const TokenGrid& grid, int64_t head_width, int64_t max_positions, at::Device device) {
  if (std::max({grid.frames, grid.rows, grid.cols}) > max_positions) {
    throw ConfigError(
        fmt::format("the clip has {} x {} x {} latent patches; the model's position table ends at {} per axis",
                    grid.frames, grid.rows, grid.cols, max_positions));
  }
  const int64_t side = 2 * (head_width / 6);
  const int64_t time = head_width - 2 * side;
  const std::vector<int64_t> full = {grid.frames, grid.rows, grid.cols, -1};
  at::Tensor angles = at::cat({axis_angles(grid.frames, time).view({grid.frames, 1, 1, time / 2}).expand(full),
                               axis_angles(grid.rows, side).view({1, grid.rows, 1, side / 2}).expand(full),
                               axis_angles(grid.cols, side).view({1, 1, grid.cols, side / 2}).expand(full)},
                              -1)
                          .reshape({grid.video_tokens(), head_width / 2});
  return {at::cos(angles).to(device, at::kFloat).contiguous(), at::sin(angles).to(device, at::kFloat).contiguous()};
}

}  // namespace strobe::models
