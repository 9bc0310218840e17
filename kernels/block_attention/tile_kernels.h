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

// 2^x for x < 127, relative error below 2e-7; 0 from -127 on down, NaN for NaN.
template <class Isa>
STROBE_INLINE typename Isa::Vec exp2_clamped(typename Isa::Vec x) {
  using Vec = typename Isa::Vec;
  const Vec magic = Isa::set(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  x = Isa::max(Isa::set(-127.0F), x);       // the power of two is then 0 and the polynomial exactly 1
  const Vec n = Isa::add(x, magic);
  const Vec f = Isa::sub(x, Isa::sub(n, magic));
  // Minimax of degree 5 on [-1/2, 1/2] with constant term 1. Not Horner's scheme: its chain of five fills the scheduler.
  const Vec f2 = Isa::mul(f, f);
  const Vec low = Isa::fma(f, Isa::set(6.93146978e-1F), Isa::set(1.0F));
  const Vec middle = Isa::fma(f, Isa::set(5.55073374e-2F), Isa::set(2.40222421e-1F));
  const Vec high = Isa::fma(f, Isa::set(1.32647272e-3F), Isa::set(9.67151264e-3F));
  const Vec p = Isa::fma(Isa::fma(high, f2, middle), f2, low);
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

// R rows of scores of C groups. Lines from `ahead` on are fetched for a later call.
template <class Isa, int R, int C>
__attribute__((noinline)) void score_tile(const Tile& tile, const float* q, [[maybe_unused]] const float* scale,
                                          int steps, const char* const* records, float* s, const char* ahead) {
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
  int step = 0;
  for (; step + Isa::kScoreUnroll <= steps; step += Isa::kScoreUnroll) {
#pragma GCC unroll 2
    for (int i = 0; i < Isa::kScoreLinesAhead; ++i) _mm_prefetch(ahead + i * 64, _MM_HINT_T0);
    ahead += Isa::kScoreLinesAhead * 64;
#pragma GCC unroll 8
    for (int i = 0; i < Isa::kScoreUnroll; ++i) {
      Vec b[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) b[c] = Isa::load(keys[c] + (step + i) * Isa::kLanes);
      multiply_step<Isa, R, C>(sum, q + i * R, 1, b);
    }
    q += Isa::kScoreUnroll * R;
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
    for (int r = 0; r < R; ++r) {
      Vec score = Isa::add(sum[r][c], bias);
      if constexpr (Isa::kIsBf16) score = Isa::fma(sum[r][c], Isa::broadcast(scale + r), bias);
      Isa::store(s + r * kScoreStride + c * Isa::kLanes, score);
    }
  }
}

// R rows of o, C vectors of value columns, over all groups of a stage.
template <class Isa, int R, int C>
__attribute__((noinline)) void value_tile(const float* p, const Stage& stage, int64_t value_offset, float* o,
                                          const char* const* ahead, int64_t ahead_offset) {
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
#pragma GCC unroll 4
    for (int i = 0; i < Isa::kValueLinesAhead; ++i) _mm_prefetch(ahead[g] + ahead_offset + i * 64, _MM_HINT_T0);
#pragma GCC unroll 8
    for (int t = 0; t < kSteps; ++t) {
      Vec b[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        b[c] = Isa::load(v + c / kVectorsPerPanel * kPanelFloats + t * kPanel + c % kVectorsPerPanel * Isa::kLanes);
      }
      multiply_step<Isa, R, C>(sum, p + t, kScoreStride, b);
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
  static constexpr int kPanels = kVectors / kVectorsPerPanel;  // of a register tile
  static constexpr int64_t kPanelBytes = int64_t{kLanes} * kPanel * (Isa::kIsBf16 ? 2 : 4);

  static int steps_of(int head_dim) { return Isa::kIsBf16 ? (head_dim + 1) / 2 : head_dim; }

  // What the next pass over the rows reads is fetched by this one, a line or two in each iteration of a register tile: a
  // pass takes some thousand cycles, more than the last cache level needs. (Prefetching during the softmax costs 4 %.)
  // This is where the c-th register tile of a pass over score rows fetches from.
  struct Ahead {
    const char* const* records;
    int count;
    int64_t offset;
    int calls_each;  // register tiles that share a record

    const char* at(const Tile& tile, int call) const {
      const int record = call / calls_each;
      if (record >= count) return tile.q;  // in the cache: costs nothing
      const int64_t bytes = int64_t{steps_of(tile.shape.head_dim)} / Isa::kScoreUnroll * Isa::kScoreLinesAhead * 64;
      return records[record] + offset + call % calls_each * bytes;
    }
  };

  template <int C>
  static void score_rows(const Tile& tile, const char* const* records, float* s, const Ahead& next) {
    const int steps = steps_of(tile.shape.head_dim);
    const float* q = reinterpret_cast<const float*>(tile.q);
    for (int row = 0, call = 0; row < tile.rows; ++call) {
      const int rows = next_row_group(tile.rows - row);
      const char* ahead = next.at(tile, call);
      float* out = s + int64_t{row} * kScoreStride;
      switch (rows) {
        case 1:
          score_tile<Isa, 1, C>(tile, q, tile.scale + row, steps, records, out, ahead);
          break;
        case 2:
          score_tile<Isa, 2, C>(tile, q, tile.scale + row, steps, records, out, ahead);
          break;
        case 3:
          score_tile<Isa, 3, C>(tile, q, tile.scale + row, steps, records, out, ahead);
          break;
        case 4:
          score_tile<Isa, 4, C>(tile, q, tile.scale + row, steps, records, out, ahead);
          break;
        case 5:
          score_tile<Isa, 5, C>(tile, q, tile.scale + row, steps, records, out, ahead);
          break;
        default:
          score_tile<Isa, 6, C>(tile, q, tile.scale + row, steps, records, out, ahead);
          break;
      }
      row += rows;
      q += int64_t{rows} * steps;
    }
  }

  static void scores(const Tile& tile, const Stage& stage) {
    constexpr int kCallsEach =
        kLanes * Isa::kScoreUnroll / 16 / Isa::kScoreLinesAhead;  // register tiles that a record's keys take
    for (int g = 0; g < stage.count; g += kVectors) {
      const int after = stage.count - g - kVectors;
      Ahead ahead = {stage.records + g + kVectors, after, 0, kCallsEach};
      if (after <= 0) ahead = {stage.records, stage.count, tile.shape.value_offset, 1};
      if (after <= 0 && tile.shape.panels == 0) ahead = {stage.next, stage.next_count, 0, kCallsEach};
      const char* const* records = stage.records + g;
      float* s = tile.s + g * kLanes;
      switch (after < 0 ? kVectors + after : kVectors) {
        case 1:
          score_rows<1>(tile, records, s, ahead);
          break;
        case 2:
          score_rows<2>(tile, records, s, ahead);
          break;
        case 3:
          score_rows<(kVectors > 3 ? 3 : 1)>(tile, records, s, ahead);
          break;
        default:
          score_rows<kVectors>(tile, records, s, ahead);
          break;
      }
    }
  }

  template <int C>
  static void value_rows(const Tile& tile, const Stage& stage, int64_t offset, float* o, const char* const* ahead,
                         int64_t ahead_at, int64_t ahead_bytes) {
    for (int row = 0; row < tile.rows;) {
      const int rows = next_row_group(tile.rows - row);
      const float* p = tile.s + int64_t{row} * kScoreStride;
      float* out = o + int64_t{row} * kPanel;
      switch (rows) {
        case 1:
          value_tile<Isa, 1, C>(p, stage, offset, out, ahead, ahead_at);
          break;
        case 2:
          value_tile<Isa, 2, C>(p, stage, offset, out, ahead, ahead_at);
          break;
        case 3:
          value_tile<Isa, 3, C>(p, stage, offset, out, ahead, ahead_at);
          break;
        case 4:
          value_tile<Isa, 4, C>(p, stage, offset, out, ahead, ahead_at);
          break;
        case 5:
          value_tile<Isa, 5, C>(p, stage, offset, out, ahead, ahead_at);
          break;
        default:
          value_tile<Isa, 6, C>(p, stage, offset, out, ahead, ahead_at);
          break;
      }
      row += rows;
      ahead_at += 64 * Isa::kValueLinesAhead;
      ahead_bytes -= 64 * Isa::kValueLinesAhead;
      if (ahead_bytes <= 0) {  // all is under way
        ahead = stage.records;
        ahead_at = offset;
      }
    }
  }

  static void values(const Tile& tile, const Stage& stage) {
    // The next stage's first keys, cut into as many pieces as this stage has records.
    const char* keys[kStageGroups];
    const int64_t key_bytes = int64_t{steps_of(tile.shape.head_dim)} * kLanes * 4;
    const int count = stage.next_count < kVectors ? stage.next_count : kVectors;
    const int64_t piece = (count * key_bytes / stage.count + 63) / 64 * 64;
    for (int i = 0; i < stage.count; ++i) {
      const int64_t at = i * piece;
      keys[i] = at < count * key_bytes ? stage.next[at / key_bytes] + at % key_bytes : tile.q;
    }
    for (int panel = 0; panel < tile.shape.panels; panel += kPanels) {
      const int after = tile.shape.panels - panel - kPanels;
      const int64_t offset = tile.shape.value_offset + panel * kPanelBytes;
      float* o = tile.o + int64_t{panel} * kTileRows * kPanel;
      const char* const* ahead = after > 0 ? stage.records : keys;
      const int64_t at = after > 0 ? offset + kPanels * kPanelBytes : 0;
      const int64_t bytes = after > 0 ? kPanels * kPanelBytes : piece;
      switch (after < 0 ? kPanels + after : kPanels) {
        case 1:
          value_rows<kVectorsPerPanel>(tile, stage, offset, o, ahead, at, bytes);
          break;
        case 2:
          value_rows<(kPanels > 1 ? 2 : 1) * kVectorsPerPanel>(tile, stage, offset, o, ahead, at, bytes);
          break;
        case 3:
          value_rows<(kPanels > 1 ? 3 : 1) * kVectorsPerPanel>(tile, stage, offset, o, ahead, at, bytes);
          break;
        default:
          value_rows<kVectors>(tile, stage, offset, o, ahead, at, bytes);
          break;
      }
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
    _mm_store_ps(factors, Isa::narrow(exp2_clamped<Isa>(Isa::widen(_mm_sub_ps(old, now)))));
    for (int i = 0; i < 4; ++i) {
      if ((grew >> i & 1) != 0) rescale(tile, row + i, factors[i]);
    }
  }

  // Rows are taken by four; the buffers have room for the three that may lie beyond the last one.
  static void softmax(const Tile& tile, const Stage& stage) {
    const int vectors = stage.count;
    for (int row = 0; row < tile.rows; row += 4) {
      float* s = tile.s + int64_t{row} * kScoreStride;
      Vec top[4];
      for (int r = 0; r < 4; ++r) top[r] = Isa::load(s + r * kScoreStride);
      for (int c = 1; c < vectors; ++c) {
        for (int r = 0; r < 4; ++r) top[r] = Isa::max(top[r], Isa::load(s + r * kScoreStride + c * kLanes));
      }
      raise_maxima(tile, row, Isa::maxima(top[0], top[1], top[2], top[3]));
      for (int r = 0; r < 4; ++r) {
        float* x = s + r * kScoreStride;
        float* l = tile.l + int64_t{row + r} * kLanes;
        const Vec m = Isa::broadcast(tile.m + row + r);
        Vec sum = Isa::load(l);
        for (int c = 0; c < vectors; ++c) {
          const Vec p = exp2_clamped<Isa>(Isa::sub(Isa::load(x + c * kLanes), m));
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
        const float* o = tile.o + (int64_t{panel} * kTileRows + row) * kPanel;
        if (!to_bf16 && (panel + 1) * kPanel <= width) {
          float* to = static_cast<float*>(out[row]) + panel * kPanel;
          for (int c = 0; c < kPanel; c += kLanes) Isa::store(to + c, Isa::mul(Isa::load(o + c), factor));
          continue;
        }
        alignas(64) float values[kPanel];
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
