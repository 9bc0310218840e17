#include "models/vae/pixel_passes.h"

#include <cstring>

#include "core/error.h"
#include "core/parallel.h"
#include "core/torch.h"

// Vectors are wider than the baseline instruction set; nothing passes them across a call.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace strobe::models {
namespace {

#define STROBE_INLINE inline __attribute__((always_inline))

constexpr int64_t kLanes = 16;
using Lanes = float __attribute__((vector_size(64)));
using LaneInts = int32_t __attribute__((vector_size(64)));

STROBE_INLINE void load(Lanes& v, const float* from, int64_t count) {
  if (count >= kLanes) {
    std::memcpy(&v, from, sizeof v);
  } else {
    v = Lanes{};
    for (int64_t i = 0; i < count; ++i) v[i] = from[i];
  }
}

STROBE_INLINE void store(float* to, const Lanes& v, int64_t count) {
  if (count >= kLanes) {
    std::memcpy(to, &v, sizeof v);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = v[i];
  }
}

STROBE_INLINE float sum_lanes(const Lanes& lanes) {
  Lanes v = lanes;
  v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  return (v[0] + v[1]) + (v[2] + v[3]);
}

// exp by range reduction to [-ln2/2, ln2/2] and a polynomial of degree 6 (coefficients of the Cephes library's expf).
STROBE_INLINE void exponential(Lanes& x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  x = x > 88.0F ? Lanes{} + 88.0F : x;
  x = x < -87.0F ? Lanes{} - 87.0F : x;
  const Lanes shifted = x * 1.44269504088896341F + kRound;
  const Lanes n = shifted - kRound;
  const Lanes r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  Lanes p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  LaneInts bits, power;
  std::memcpy(&bits, &shifted, sizeof bits);
  power = ((bits - 0x4B400000) + 127) << 23;
  Lanes scale;
  std::memcpy(&scale, &power, sizeof scale);
  x = p * scale;
}

template <bool kSilu>
STROBE_INLINE void normalise_rows(const float* input, const float* gamma, float* output, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, input += width, output += width) {
    Lanes squares{}, v;
    for (int64_t c = 0; c < width; c += kLanes) {
      load(v, input + c, width - c);
      squares += v * v;
    }
    const float scale = 1.0F / std::max(std::sqrt(sum_lanes(squares)), 1e-12F);
    for (int64_t c = 0; c < width; c += kLanes) {
      Lanes g;
      load(v, input + c, width - c);
      load(g, gamma + c, width - c);
      v = v * scale * g;
      if constexpr (kSilu) {
        Lanes e = -v;
        exponential(e);
        v = v / (e + 1.0F);
      }
      store(output + c, v, width - c);
    }
  }
}

using NormaliseRows = void (*)(const float*, const float*, float*, int64_t, int64_t);

template <bool kSilu>
void normalise_rows_baseline(const float* x, const float* g, float* y, int64_t rows, int64_t width) {
  normalise_rows<kSilu>(x, g, y, rows, width);
}

#if defined(__x86_64__)
template <bool kSilu>
__attribute__((target("avx2,fma"))) void normalise_rows_avx2(const float* x, const float* g, float* y, int64_t rows,
                                                             int64_t width) {
  normalise_rows<kSilu>(x, g, y, rows, width);
}
template <bool kSilu>
__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma"))) void normalise_rows_avx512(const float* x,
                                                                                             const float* g, float* y,
                                                                                             int64_t rows,
                                                                                             int64_t width) {
  normalise_rows<kSilu>(x, g, y, rows, width);
}
#endif

template <bool kSilu>
NormaliseRows pick_normalise_rows() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw")) {
    return normalise_rows_avx512<kSilu>;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return normalise_rows_avx2<kSilu>;
#endif
  return normalise_rows_baseline<kSilu>;
}

// Elements that are worth a thread's start.
constexpr int64_t kGrain = 1 << 15;

}  // namespace

void normalise_channels(const at::Tensor& input, const at::Tensor& gamma, bool with_silu, at::Tensor& output) {
  const int64_t width = input.size(-1);
  STROBE_CHECK(output.sizes() == input.sizes() && gamma.numel() == width,
               "normalise_channels: {} channels, gamma has {}", width, gamma.numel());
  STROBE_CHECK(input.is_contiguous() && output.is_contiguous(), "normalise_channels: expected contiguous tensors");
  static const NormaliseRows with = pick_normalise_rows<true>(), without = pick_normalise_rows<false>();
  const NormaliseRows run = with_silu ? with : without;
  const at::Tensor scaled = (gamma * std::sqrt(static_cast<double>(width))).contiguous();
  const float *x = input.const_data_ptr<float>(), *g = scaled.const_data_ptr<float>();
  float* y = output.data_ptr<float>();
  parallel_for(0, input.numel() / width, std::max<int64_t>(1, kGrain / width),
               [&](int64_t begin, int64_t end) { run(x + begin * width, g, y + begin * width, end - begin, width); });
}

void interleave_phases(const at::Tensor& phases, at::Tensor& output) {
  const int64_t rows = output.size(1) / 2, cols = output.size(2) / 2, width = output.size(3);
  const float* from = phases.const_data_ptr<float>();
  float* to = output.data_ptr<float>();
  const int64_t line = 2 * cols * width;
  parallel_for(0, output.size(0) * 2 * rows, std::max<int64_t>(1, kGrain / line), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t frame = i / (2 * rows), row = i % (2 * rows), a = row % 2;
      const float* source = from + ((frame * (rows + 1) + row / 2 + a) * (cols + 1)) * 4 * width + 2 * a * width;
      float* target = to + i * line;
      for (int64_t col = 0; col < cols; ++col) {
        std::memcpy(target + 2 * col * width, source + col * 4 * width, width * sizeof(float));
        std::memcpy(target + (2 * col + 1) * width, source + ((col + 1) * 4 + 1) * width, width * sizeof(float));
      }
    }
  });
}

}  // namespace strobe::models
