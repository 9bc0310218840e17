// Rotary position tables of video transformers: a head's pairs are shared out among frame, row and column.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/token_grid.h"

namespace strobe::models {

struct RopeTables {
  at::Tensor cosine;  // [N, D / 2] float32
  at::Tensor sine;
};

// Wan's split (wan.md 3.6): rows and columns get 2 * (D / 6) values each, frames the rest; angle = position *
// 10000^(-2j / axis width), computed in float64. Positions count from 0 in latent frames and patches.
// ConfigError if the grid has more positions than `max_positions`.
RopeTables make_rope_3d(const TokenGrid& grid, int64_t head_width, int64_t max_positions, at::Device device);

}  // namespace strobe::models
