// The tokens of one clip: F x R x W latent patches in raster order, plus L text tokens at one end.
#pragma once

#include <cstdint>

#include "core/error.h"

namespace strobe {

struct TokenGrid {
  int64_t frames = 0;  // F, latent frames after patching
  int64_t rows = 0;    // R, patch rows
  int64_t cols = 0;    // W, patch columns
  int64_t text_tokens = 0;
  bool is_text_first = false;

  int64_t video_tokens() const { return frames * rows * cols; }
  int64_t tokens() const { return video_tokens() + text_tokens; }
  int64_t first_video_token() const { return is_text_first ? text_tokens : 0; }

  // Raster position of a patch among all tokens, the text included.
  int64_t index(int64_t frame, int64_t row, int64_t col) const {
    STROBE_DCHECK(frame < frames && row < rows && col < cols, "patch ({}, {}, {}) outside {}x{}x{}", frame, row, col,
                  frames, rows, cols);
    return first_video_token() + (frame * rows + row) * cols + col;
  }

  bool operator==(const TokenGrid&) const = default;
};

}  // namespace strobe
