// Tiled attention in bf16 with AVX512-BF16: products by vdpbf16ps (two multiply-adds a lane into fp32), softmax in fp32.
//
// Register tile 6 rows x 64 columns. A step is a pair: two elements of the head width for scores, two keys for values.
// Packed operands are 32-bit words of such a pair. Limit: the dot-product units; the softmax is a fifth of head width 64.
#include "kernels/block_attention/tile_kernels.h"
#include "kernels/block_attention/tile_packing.h"
#include "kernels/block_attention/tiles.h"
#include "kernels/common/simd_avx512.h"

namespace strobe::kernels {
namespace {

struct Avx512Bf16 : Avx512 {
  static constexpr bool kIsBf16 = true;

  static Vec multiply_add(Vec sum, Vec a, Vec b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  // In place: the row's bf16 probabilities fill its front half, behind the scores that were read.
  static void store_probability(float* row, int index, Vec p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(reinterpret_cast<uint16_t*>(row) + index * kLanes),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(p)));
  }
};

constexpr int kMaxWords = 128;  // pairs of a head width of 256

__mmask16 lanes_below(int count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1); }

__m256i narrow_lanes(const float* from, int count) {
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes_below(count), from)));
}

// A row as words of two bf16; an odd width ends with a zero.
void narrow_row(const float* row, int width, float* words) {
  for (int c = 0; c < width; c += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + c / 2), narrow_lanes(row + c, width - c));
  }
}

// The scale goes to the scores: q in bf16 stays what it was.
void pack_queries(const float* const* rows, const float* scales, const Tile& tile) {
  std::memcpy(tile.scale, scales, sizeof(float) * tile.rows);
  const int steps = (tile.shape.head_dim + 1) / 2;
  float* to = reinterpret_cast<float*>(tile.q);
  for (int row = 0; row < tile.rows;) {
    const int count = next_row_group(tile.rows - row);
    float words[6][kMaxWords];
    const float* places[6];
    for (int i = 0; i < count; ++i) {
      narrow_row(rows[row + i], tile.shape.head_dim, words[i]);
      places[i] = words[i];
    }
    transpose_rows(places, nullptr, count, steps, count, to);
    to += int64_t{count} * steps;
    row += count;
  }
}

void pack_keys(const float* const* rows, const RecordShape& shape, char* record) {
  float words[8][kMaxWords];
  const float* places[8];
  for (int part = 0; part < Avx512::kLanes; part += 8) {
    for (int i = 0; i < 8; ++i) {
      narrow_row(rows[part + i], shape.head_dim, words[i]);
      places[i] = words[i];
    }
    transpose_rows(places, nullptr, 8, (shape.head_dim + 1) / 2, Avx512::kLanes,
                   reinterpret_cast<float*>(record) + part);
  }
}

void pack_values(const float* const* rows, const RecordShape& shape, char* record) {
  char* to = record + shape.value_offset;
  for (int panel = 0; panel < shape.panels; ++panel) {
    const int first = panel * kPanel, count = shape.head_dim - first;
    for (int key = 0; key < Avx512::kLanes; key += 2, to += 64) {
      const __m512i low = _mm512_cvtepu16_epi32(narrow_lanes(rows[key] + first, count));
      const __m512i high = _mm512_cvtepu16_epi32(narrow_lanes(rows[key + 1] + first, count));
      _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

}  // namespace

const TileOps& tile_ops_bf16_avx512() {
  using Kernels = TileKernels<Avx512Bf16>;
  static const TileOps ops = {Avx512Bf16::kLanes, Avx512Bf16::kLanes, Avx512Bf16::kIsBf16, widen_rows,
                              pack_queries,       pack_keys,          pack_values,         Kernels::scores,
                              Kernels::softmax,   Kernels::values,    Kernels::finish};
  return ops;
}

}  // namespace strobe::kernels
