// Packing for fp32 operands, for files compiled for AVX2 or more.
#pragma once

#include "kernels/block_attention/tile_ops.h"
#include "kernels/common/simd_avx2.h"

namespace strobe::kernels {
namespace {

// bf16 -> fp32.
inline void widen_rows(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)));
  }
  for (; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

// to[step * stride + r] = rows[r][step] for up to eight rows. Writes eight floats a step where it can: those past
// `count` are rubbish that the next step, the next row group or the slack of the buffer takes.
inline void transpose_rows(const float* const* rows, const float* scales, int count, int steps, int stride, float* to) {
  int step = 0;
  for (; step + 8 <= steps; step += 8) {
    __m256 r[8];
    for (int i = 0; i < 8; ++i) r[i] = i < count ? _mm256_loadu_ps(rows[i] + step) : _mm256_setzero_ps();
    if (scales) {
      for (int i = 0; i < count; ++i) r[i] = _mm256_mul_ps(r[i], _mm256_set1_ps(scales[i]));
    }
    transpose_8x8(r);
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(to + int64_t{step + i} * stride, r[i]);
  }
  for (; step < steps; ++step) {
    for (int i = 0; i < count; ++i) to[int64_t{step} * stride + i] = rows[i][step] * (scales ? scales[i] : 1.0F);
  }
}

inline void pack_queries_fp32(const float* const* rows, const float* scales, const Tile& tile) {
  float* to = reinterpret_cast<float*>(tile.q);
  for (int row = 0; row < tile.rows;) {
    const int count = next_row_group(tile.rows - row);
    transpose_rows(rows + row, scales + row, count, tile.shape.head_dim, count, to);
    to += int64_t{count} * tile.shape.head_dim;
    row += count;
  }
}

template <int kGroup>
void pack_keys_fp32(const float* const* rows, const RecordShape& shape, char* record) {
  float* to = reinterpret_cast<float*>(record);
  for (int part = 0; part < kGroup; part += 8) {
    transpose_rows(rows + part, nullptr, 8, shape.head_dim, kGroup, to + part);
  }
}

template <int kGroup>
void pack_values_fp32(const float* const* rows, const RecordShape& shape, char* record) {
  float* to = reinterpret_cast<float*>(record + shape.value_offset);
  const int whole = shape.head_dim / kPanel;
  for (int panel = 0; panel < shape.panels; ++panel) {
    for (int key = 0; key < kGroup; ++key, to += kPanel) {
      const float* from = rows[key] + panel * kPanel;
      if (panel < whole) {
        _mm256_storeu_ps(to, _mm256_loadu_ps(from));
        _mm256_storeu_ps(to + 8, _mm256_loadu_ps(from + 8));
      } else {
        const int width = shape.head_dim - panel * kPanel;
        for (int c = 0; c < kPanel; ++c) to[c] = c < width ? from[c] : 0.0F;
      }
    }
  }
}

}  // namespace
}  // namespace strobe::kernels
