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

// One AVX2 register: comparisons of wider vectors are taken apart into scalars where AVX-512 is absent.
constexpr int64_t kLanes = 8;
using Lanes = float __attribute__((vector_size(32)));
using LaneInts = int32_t __attribute__((vector_size(32)));

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
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
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

constexpr float kLeastLength = 1e-12F;

// The first row of each tensor; `gamma` includes the factor sqrt(C).
struct RowGradients {
  const float *gradient, *input, *gamma;
  float *input_gradient, *gamma_gradient;
};

template <bool kSilu>
STROBE_INLINE void normalise_rows(const float* input, const float* gamma, float* output, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, input += width, output += width) {
    Lanes squares{}, v;
    for (int64_t c = 0; c < width; c += kLanes) {
      load(v, input + c, width - c);
      squares += v * v;
    }
    const float scale = 1.0F / std::max(std::sqrt(sum_lanes(squares)), kLeastLength);
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

// With u = x / ||x||, a = u gamma, y = f(a): dx = (du - u (u . du)) / ||x|| where du = dy f'(a) gamma.
// Adds dy f'(a) u to `gamma_gradient`.
template <bool kSilu>
STROBE_INLINE void normalise_rows_backward(const RowGradients& rows, int64_t count, int64_t width) {
  const float *dy = rows.gradient, *x = rows.input;
  float* dx = rows.input_gradient;
  for (int64_t row = 0; row < count; ++row, dy += width, x += width, dx += width) {
    Lanes squares{}, projection{}, v, g, d;
    for (int64_t c = 0; c < width; c += kLanes) {
      load(v, x + c, width - c);
      squares += v * v;
    }
    const float length = std::sqrt(sum_lanes(squares));
    const float scale = 1.0F / std::max(length, kLeastLength);
    for (int64_t c = 0; c < width; c += kLanes) {
      load(v, x + c, width - c);
      load(g, rows.gamma + c, width - c);
      load(d, dy + c, width - c);
      v *= scale;
      if constexpr (kSilu) {
        const Lanes a = v * g;
        Lanes e = -a;
        exponential(e);
        const Lanes sigmoid = 1.0F / (e + 1.0F);
        d *= sigmoid * (1.0F + a * (1.0F - sigmoid));
      }
      Lanes sum;
      load(sum, rows.gamma_gradient + c, width - c);
      store(rows.gamma_gradient + c, sum + d * v, width - c);
      d *= g;
      projection += d * v;
      store(dx + c, d, width - c);
    }
    // Below the least length the divisor is a constant.
    const float along = length > kLeastLength ? sum_lanes(projection) : 0.0F;
    for (int64_t c = 0; c < width; c += kLanes) {
      load(v, x + c, width - c);
      load(d, dx + c, width - c);
      store(dx + c, (d - v * (scale * along)) * scale, width - c);
    }
  }
}

using NormaliseRows = void (*)(const float*, const float*, float*, int64_t, int64_t);
using NormaliseRowsBackward = void (*)(const RowGradients&, int64_t, int64_t);

template <bool kSilu>
void normalise_rows_baseline(const float* x, const float* g, float* y, int64_t rows, int64_t width) {
  normalise_rows<kSilu>(x, g, y, rows, width);
}
template <bool kSilu>
void normalise_rows_backward_baseline(const RowGradients& rows, int64_t count, int64_t width) {
  normalise_rows_backward<kSilu>(rows, count, width);
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
template <bool kSilu>
__attribute__((target("avx2,fma"))) void normalise_rows_backward_avx2(const RowGradients& rows, int64_t count,
                                                                      int64_t width) {
  normalise_rows_backward<kSilu>(rows, count, width);
}
template <bool kSilu>
__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma"))) void normalise_rows_backward_avx512(
    const RowGradients& rows, int64_t count, int64_t width) {
  normalise_rows_backward<kSilu>(rows, count, width);
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

template <bool kSilu>
NormaliseRows pick_normalise_rows() {
#if defined(__x86_64__)
  if (has_avx512()) return normalise_rows_avx512<kSilu>;
  if (has_avx2()) return normalise_rows_avx2<kSilu>;
#endif
  return normalise_rows_baseline<kSilu>;
}

template <bool kSilu>
NormaliseRowsBackward pick_normalise_rows_backward() {
#if defined(__x86_64__)
  if (has_avx512()) return normalise_rows_backward_avx512<kSilu>;
  if (has_avx2()) return normalise_rows_backward_avx2<kSilu>;
#endif
  return normalise_rows_backward_baseline<kSilu>;
}

// Elements that are worth a thread's start.
constexpr int64_t kGrain = 1 << 15;

// Rows whose share of gamma's gradient is summed on its own, so that the sum does not depend on the threads.
constexpr int64_t kRowsPerSum = 1024;

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

void normalise_channels_backward(const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& gamma,
                                 bool with_silu, at::Tensor& input_gradient, at::Tensor& gamma_gradient) {
  const int64_t width = input.size(-1);
  STROBE_CHECK(gradient.sizes() == input.sizes() && input_gradient.sizes() == input.sizes() && gamma.numel() == width &&
                   gamma_gradient.numel() == width,
               "normalise_channels_backward: {} channels, gamma has {}", width, gamma.numel());
  STROBE_CHECK(gradient.is_contiguous() && input.is_contiguous() && input_gradient.is_contiguous(),
               "normalise_channels_backward: expected contiguous tensors");
  static const NormaliseRowsBackward with = pick_normalise_rows_backward<true>(),
                                     without = pick_normalise_rows_backward<false>();
  const NormaliseRowsBackward run = with_silu ? with : without;
  const double gain = std::sqrt(static_cast<double>(width));
  const at::Tensor scaled = (gamma * gain).contiguous();
  const int64_t rows = input.numel() / width, num_sums = (rows + kRowsPerSum - 1) / kRowsPerSum;
  at::Tensor sums = at::zeros({num_sums, width}, input.options());
  const RowGradients all = {gradient.const_data_ptr<float>(), input.const_data_ptr<float>(),
                            scaled.const_data_ptr<float>(), input_gradient.data_ptr<float>(), sums.data_ptr<float>()};
  parallel_for(0, num_sums, std::max<int64_t>(1, kGrain / (kRowsPerSum * width)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kRowsPerSum, offset = first * width;
      run({all.gradient + offset, all.input + offset, all.gamma, all.input_gradient + offset,
           all.gamma_gradient + i * width},
          std::min(kRowsPerSum, rows - first), width);
    }
  });
  gamma_gradient.copy_(sums.sum(0).mul_(gain).view_as(gamma_gradient));
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

void separate_phases(const at::Tensor& output, at::Tensor& phases) {
  const int64_t rows = output.size(1) / 2, cols = output.size(2) / 2, width = output.size(3);
  const float* from = output.const_data_ptr<float>();
  float* to = phases.data_ptr<float>();
  const size_t bytes = static_cast<size_t>(width) * sizeof(float);
  const int64_t line = 4 * (cols + 1) * width;
  parallel_for(0, output.size(0) * (rows + 1), std::max<int64_t>(1, kGrain / line), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t frame = i / (rows + 1), r = i % (rows + 1);
      for (int64_t phase = 0; phase < 4; ++phase) {
        const int64_t a = phase / 2, b = phase % 2, row = r - a;
        float* target = to + i * line + phase * width;
        if (row < 0 || row >= rows) {
          for (int64_t c = 0; c <= cols; ++c) std::memset(target + c * 4 * width, 0, bytes);
          continue;
        }
        const float* source = from + ((frame * 2 * rows + 2 * row + a) * 2 * cols + b) * width;
        for (int64_t col = 0; col < cols; ++col) {
          std::memcpy(target + (col + b) * 4 * width, source + 2 * col * width, bytes);
        }
        std::memset(target + (b == 0 ? cols : 0) * 4 * width, 0, bytes);
      }
    }
  });
}

}  // namespace strobe::models
