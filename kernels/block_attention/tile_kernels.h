// The stages of tile_ops.h for an instruction set given as a struct of vector operations (simd_avx2.h, simd_avx512.h).
//
// Loops: a register tile has 6 rows and `kVectors` vectors; operand B (keys or values) is outside, row groups inside, so
// that B stays in the first-level cache. A step loads B, broadcasts one element of each row and does 6 x kVectors
// multiply-adds: 20 instructions for 12 with AVX2, limited by the FMA units.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/block_attention/tile_ops.h"
#include "kernels/common/bf16.h"

#define STROBE_INLINE inline __attribute__((always_inline))

namespace strobe::kernels {
namespace {

// 2^x for x <= 0, relative error below 2e-7; 0 from -127 on, NaN for NaN.
template <class Isa>
STROBE_INLINE typename Isa::Vec exp2_nonpositive(typename Isa::Vec x) {
  using Vec = typename Isa::Vec;
  const Vec magic = Isa::set(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  x = Isa::max(Isa::set(-127.0F), x);       // the power of two is then 0 and the polynomial exactly 1
  const Vec n = Isa::add(x, magic);
  const Vec f = Isa::sub(x, Isa::sub(n, magic));
  // Minimax of degree 5 on [-1/2, 1/2] with constant term 1.
  Vec p = Isa::set(1.32647272e-3F);
  p = Isa::fma(p, f, Isa::set(9.67151264e-3F));
  p = Isa::fma(p, f, Isa::set(5.55073374e-2F));
  p = Isa::fma(p, f, Isa::set(2.40222421e-1F));
  p = Isa::fma(p, f, Isa::set(6.93146978e-1F));
  p = Isa::fma(p, f, Isa::set(1.0F));
  return Isa::scale_by_power(p, n);
}

template <class Isa, int R, int C>
STROBE_INLINE void multiply_step(typename Isa::Vec (&sum)[R][C], const float* a, int64_t a_stride,
                                 const typename Isa::Vec (&b)[C]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const typename Isa::Vec x = Isa::broadcast(a + r * a_stride);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = Isa::multiply_add(sum[r][c], x, b[c]);
  }
}

// R rows of scores of C groups.
template <class Isa, int R, int C>
void score_tile(const Tile& tile, const float* q, int steps, const char* const* records, float* s) {
  using Vec = typename Isa::Vec;
  Vec sum[R][C];
  const float* keys[C];
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) keys[c] = reinterpret_cast<const float*>(records[c]);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = Isa::zero();
  }
  constexpr int kUnroll = 4;
  int step = 0;
  for (; step + kUnroll <= steps; step += kUnroll) {
#pragma GCC unroll 4
    for (int i = 0; i < kUnroll; ++i) {
      Vec b[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) b[c] = Isa::load(keys[c] + (step + i) * Isa::kLanes);
      multiply_step<Isa, R, C>(sum, q + i * R, 1, b);
    }
    q += kUnroll * R;
  }
#pragma GCC unroll 1
  for (; step < steps; ++step, q += R) {
    Vec b[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) b[c] = Isa::load(keys[c] + step * Isa::kLanes);
    multiply_step<Isa, R, C>(sum, q, 1, b);
  }
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
    const Vec bias = Isa::load(reinterpret_cast<const float*>(records[c] + tile.shape.bias_offset));
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) Isa::store(s + r * kStageKeys + c * Isa::kLanes, Isa::add(sum[r][c], bias));
  }
}

// R rows of o, C vectors of value columns, over all groups of a stage.
template <class Isa, int R, int C>
void value_tile(const float* p, const Stage& stage, int64_t value_offset, float* o) {
  using Vec = typename Isa::Vec;
  constexpr int kSteps = Isa::kIsBf16 ? Isa::kLanes / 2 : Isa::kLanes;
  constexpr int kVectorsPerPanel = kPanel / Isa::kLanes;
  constexpr int64_t kPanelFloats = int64_t{kSteps} * kPanel;
  Vec sum[R][C];
  const auto place = [](int r, int c) {
    return c / kVectorsPerPanel * kTileRows * kPanel + r * kPanel + c % kVectorsPerPanel * Isa::kLanes;
  };
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = Isa::load(o + place(r, c));
  }
#pragma GCC unroll 1
  for (int g = 0; g < stage.count; ++g, p += kSteps) {
    const float* v = reinterpret_cast<const float*>(stage.records[g] + value_offset);
#pragma GCC unroll 8
    for (int t = 0; t < kSteps; ++t) {
      Vec b[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        b[c] = Isa::load(v + c / kVectorsPerPanel * kPanelFloats + t * kPanel + c % kVectorsPerPanel * Isa::kLanes);
      }
      multiply_step<Isa, R, C>(sum, p + t, kStageKeys, b);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) Isa::store(o + place(r, c), sum[r][c]);
  }
}

template <class Isa>
struct TileKernels {
  using Vec = typename Isa::Vec;
  static constexpr int kLanes = Isa::kLanes;
  static constexpr int kVectors = Isa::kVectors;
  static constexpr int kVectorsPerPanel = kPanel / kLanes;

  static int steps_of(int head_dim) { return Isa::kIsBf16 ? (head_dim + 1) / 2 : head_dim; }

  template <int C>
  static void score_rows(const Tile& tile, const char* const* records, float* s) {
    const int steps = steps_of(tile.shape.head_dim);
    const float* q = reinterpret_cast<const float*>(tile.q);
    for (int row = 0; row < tile.rows;) {
      const int rows = next_row_group(tile.rows - row);
      float* out = s + int64_t{row} * kStageKeys;
      switch (rows) {
        case 1:
          score_tile<Isa, 1, C>(tile, q, steps, records, out);
          break;
        case 2:
          score_tile<Isa, 2, C>(tile, q, steps, records, out);
          break;
        case 3:
          score_tile<Isa, 3, C>(tile, q, steps, records, out);
          break;
        case 4:
          score_tile<Isa, 4, C>(tile, q, steps, records, out);
          break;
        case 5:
          score_tile<Isa, 5, C>(tile, q, steps, records, out);
          break;
        default:
          score_tile<Isa, 6, C>(tile, q, steps, records, out);
          break;
      }
      row += rows;
      q += int64_t{rows} * steps;
    }
  }

  static void scores(const Tile& tile, const Stage& stage) {
    int g = 0;
    for (; g + kVectors <= stage.count; g += kVectors) {
      score_rows<kVectors>(tile, stage.records + g, tile.s + g * kLanes);
    }
    const int left = stage.count - g;
    float* s = tile.s + g * kLanes;
    if constexpr (kVectors > 3) {
      if (left == 3) score_rows<3>(tile, stage.records + g, s);
      if (left == 2) score_rows<2>(tile, stage.records + g, s);
    }
    if (left == 1) score_rows<1>(tile, stage.records + g, s);
  }

  template <int C>
  static void value_rows(const Tile& tile, const Stage& stage, int64_t offset, float* o) {
    for (int row = 0; row < tile.rows;) {
      const int rows = next_row_group(tile.rows - row);
      const float* p = tile.s + int64_t{row} * kStageKeys;
      float* out = o + int64_t{row} * kPanel;
      switch (rows) {
        case 1:
          value_tile<Isa, 1, C>(p, stage, offset, out);
          break;
        case 2:
          value_tile<Isa, 2, C>(p, stage, offset, out);
          break;
        case 3:
          value_tile<Isa, 3, C>(p, stage, offset, out);
          break;
        case 4:
          value_tile<Isa, 4, C>(p, stage, offset, out);
          break;
        case 5:
          value_tile<Isa, 5, C>(p, stage, offset, out);
          break;
        default:
          value_tile<Isa, 6, C>(p, stage, offset, out);
          break;
      }
      row += rows;
    }
  }

  static void values(const Tile& tile, const Stage& stage) {
    constexpr int kPanels = kVectors / kVectorsPerPanel;  // of a register tile
    constexpr int64_t kPanelBytes = int64_t{kLanes} * kPanel * (Isa::kIsBf16 ? 2 : 4);
    const auto offset = [&](int panel) { return tile.shape.value_offset + panel * kPanelBytes; };
    const auto out = [&](int panel) { return tile.o + int64_t{panel} * kTileRows * kPanel; };
    int panel = 0;
    for (; panel + kPanels <= tile.shape.panels; panel += kPanels) {
      value_rows<kVectors>(tile, stage, offset(panel), out(panel));
    }
    if constexpr (kPanels == 4) {
      const int left = tile.shape.panels - panel;
      if (left == 3) value_rows<3>(tile, stage, offset(panel), out(panel));
      if (left == 2) value_rows<2>(tile, stage, offset(panel), out(panel));
      if (left == 1) value_rows<1>(tile, stage, offset(panel), out(panel));
    }
  }

  // The rare case of a maximum that grew: what the row holds so far shrinks by 2^(old - new).
  static __attribute__((noinline)) void rescale(const Tile& tile, int row, float factor) {
    const Vec f = Isa::set(factor);
    float* l = tile.l + int64_t{row} * kLanes;
    Isa::store(l, Isa::mul(Isa::load(l), f));
    for (int panel = 0; panel < tile.shape.panels; ++panel) {
      float* o = tile.o + (int64_t{panel} * kTileRows + row) * kPanel;
      for (int c = 0; c < kPanel; c += kLanes) Isa::store(o + c, Isa::mul(Isa::load(o + c), f));
    }
  }

  // Raises the running maxima of four rows to those of `top` and rescales rows whose maximum grew.
  static STROBE_INLINE void raise_maxima(const Tile& tile, int row, __m128 top) {
    const __m128 old = _mm_loadu_ps(tile.m + row);
    const int grew = _mm_movemask_ps(_mm_cmpgt_ps(top, old));
    if (grew == 0) return;
    const __m128 now = _mm_max_ps(old, top);
    _mm_storeu_ps(tile.m + row, now);
    alignas(16) float factors[4];
    _mm_store_ps(factors, Isa::narrow(exp2_nonpositive<Isa>(Isa::widen(_mm_sub_ps(old, now)))));
    for (int i = 0; i < 4; ++i) {
      if ((grew >> i & 1) != 0) rescale(tile, row + i, factors[i]);
    }
  }

  // Spreads the next stage's lines over the rows of this one.
  struct Prefetcher {
    const Stage& stage;
    int64_t bytes;  // of a record
    int64_t each;   // lines for a call
    int record = 0;
    int64_t at = 0;

    Prefetcher(const Stage& s, int64_t record_bytes, int calls) : stage(s), bytes(record_bytes) {
      each = (s.next_count * (record_bytes / 64) + calls - 1) / calls;
    }
    STROBE_INLINE void step() {
      for (int64_t i = 0; i < each && record < stage.next_count; ++i) {
        _mm_prefetch(stage.next[record] + at, _MM_HINT_T1);
        at += 64;
        if (at >= bytes) {
          at = 0;
          ++record;
        }
      }
    }
  };

  // Rows are taken by four; the buffers have room for the three that may lie beyond the last one.
  static void softmax(const Tile& tile, const Stage& stage) {
    const int vectors = stage.count;
    Prefetcher prefetch(stage, tile.shape.bytes, (tile.rows + 3) / 4);
    for (int row = 0; row < tile.rows; row += 4) {
      float* s = tile.s + int64_t{row} * kStageKeys;
      Vec top[4];
      for (int r = 0; r < 4; ++r) top[r] = Isa::load(s + r * kStageKeys);
      for (int c = 1; c < vectors; ++c) {
        for (int r = 0; r < 4; ++r) top[r] = Isa::max(top[r], Isa::load(s + r * kStageKeys + c * kLanes));
      }
      raise_maxima(tile, row, Isa::maxima(top[0], top[1], top[2], top[3]));
      prefetch.step();
      for (int r = 0; r < 4; ++r) {
        float* x = s + r * kStageKeys;
        float* l = tile.l + int64_t{row + r} * kLanes;
        const Vec m = Isa::broadcast(tile.m + row + r);
        Vec sum = Isa::load(l);
        for (int c = 0; c < vectors; ++c) {
          const Vec p = exp2_nonpositive<Isa>(Isa::sub(Isa::load(x + c * kLanes), m));
          sum = Isa::add(sum, p);
          Isa::store_probability(x, c, p);
        }
        Isa::store(l, sum);
      }
    }
  }

  static void finish(const Tile& tile, void* const* out, bool to_bf16) {
    const int width = tile.shape.head_dim;
    for (int row = 0; row < tile.rows; ++row) {
      float total = 0;
      for (int i = 0; i < kLanes; ++i) total += tile.l[int64_t{row} * kLanes + i];
      const Vec factor = Isa::set(total > 0 ? 1.0F / total : total == 0 ? 0.0F : total);
      for (int panel = 0; panel < tile.shape.panels; ++panel) {
        alignas(64) float values[kPanel];
        const float* o = tile.o + (int64_t{panel} * kTileRows + row) * kPanel;
        for (int c = 0; c < kPanel; c += kLanes) Isa::store(values + c, Isa::mul(Isa::load(o + c), factor));
        const int count = width - panel * kPanel < kPanel ? width - panel * kPanel : kPanel;
        if (to_bf16) {
          uint16_t* to = static_cast<uint16_t*>(out[row]) + panel * kPanel;
          for (int c = 0; c < count; ++c) to[c] = narrow_to_bf16(values[c]);
        } else {
          std::memcpy(static_cast<float*>(out[row]) + panel * kPanel, values, sizeof(float) * count);
        }
      }
    }
  }
};

}  // namespace
}  // namespace strobe::kernels
