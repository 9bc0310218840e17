#include "models/recorded_layers.h"

#include "core/torch.h"
// After the precompiled header.
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "core/parallel.h"

namespace strobe::models {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kLanes = 16;        // partial sums: a fixed order, and wide enough for any vector unit
constexpr int64_t kRowsOfChunk = 64;  // of the sums over tokens

// sum of f(i) over [0, size).
template <class F>
float sum_lanes(int64_t size, F f) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += f(i + lane);
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < size; ++i) sum += f(i);
  return sum;
}

struct Shape {
  int64_t batch, tokens, width;
  explicit Shape(const at::Tensor& x) : batch(x.size(0)), tokens(x.size(1)), width(x.size(2)) {}
  int64_t chunks_of_row() const { return (tokens + kRowsOfChunk - 1) / kRowsOfChunk; }
  int64_t chunks() const { return batch * chunks_of_row(); }
};

// f(row of the batch, first token, end, chunk) for all chunks of tokens.
template <class F>
void for_chunks(const Shape& shape, F f) {
  const int64_t per_row = shape.chunks_of_row();
  parallel_for(0, shape.chunks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk % per_row * kRowsOfChunk;
      f(chunk / per_row, first, std::min(first + kRowsOfChunk, shape.tokens), chunk);
    }
  });
}

// [chunks, C] of partial sums to the shape of a modulation [B or 1, 1, C].
at::Tensor sum_chunks(const at::Tensor& parts, const Shape& shape, const at::Tensor& like) {
  const at::Tensor rows = parts.view({shape.batch, shape.chunks_of_row(), shape.width}).sum(1, /*keepdim=*/true);
  return like.size(0) == 1 && shape.batch > 1 ? rows.sum(0, /*keepdim=*/true) : rows;
}

const float* row_of(const at::Tensor& modulation, int64_t b) {
  return modulation.const_data_ptr<float>() + (modulation.size(0) == 1 ? 0 : b * modulation.size(2));
}

// Turns adjacent pairs by the token's angles, or back.
void rotate(float* z, const float* cosine, const float* sine, int64_t heads, int64_t pairs, float direction) {
  for (int64_t head = 0; head < heads; ++head) {
    float* const h = z + head * 2 * pairs;
    for (int64_t j = 0; j < pairs; ++j) {
      const float even = h[2 * j], odd = h[2 * j + 1], s = direction * sine[j];
      h[2 * j] = even * cosine[j] - odd * s;
      h[2 * j + 1] = even * s + odd * cosine[j];
    }
  }
}

class RmsNormRope : public Function<RmsNormRope> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& given, const at::Tensor& weight, double eps,
                            int64_t heads, const at::Tensor& cosine, const at::Tensor& sine) {
    const at::Tensor x = given.contiguous();
    const Shape shape(x);
    at::Tensor out = at::empty_like(x), inverse = at::empty({shape.batch, shape.tokens}, x.options());
    const int64_t width = shape.width, pairs = width / heads / 2;
    const float* const in = x.const_data_ptr<float>();
    const float* const w = weight.const_data_ptr<float>();
    const float* const c = cosine.numel() > 0 ? cosine.const_data_ptr<float>() : nullptr;
    const float* const s = cosine.numel() > 0 ? sine.const_data_ptr<float>() : nullptr;
    auto* const to = out.mutable_data_ptr<float>();
    auto* const inverses = inverse.mutable_data_ptr<float>();
    for_chunks(shape, [&](int64_t b, int64_t first, int64_t end, int64_t) {
      for (int64_t t = first; t < end; ++t) {
        const int64_t row = b * shape.tokens + t;
        const float* const xr = in + row * width;
        float* const yr = to + row * width;
        const float squares = sum_lanes(width, [&](int64_t i) { return xr[i] * xr[i]; });
        const float r = 1.0F / std::sqrt(squares / static_cast<float>(width) + static_cast<float>(eps));
        inverses[row] = r;
        for (int64_t i = 0; i < width; ++i) yr[i] = xr[i] * r * w[i];
        if (c) rotate(yr, c + t * pairs, s + t * pairs, heads, pairs, 1);
      }
    });
    context->save_for_backward({x, weight, inverse, cosine, sine});
    context->saved_data["heads"] = heads;
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2], &cosine = saved[3];
    const at::Tensor grad = grads[0].contiguous();
    const Shape shape(x);
    const int64_t width = shape.width, heads = context->saved_data["heads"].toInt(), pairs = width / heads / 2;
    at::Tensor dx = at::empty_like(x), parts = at::zeros({shape.chunks(), width}, x.options());
    const float* const in = x.const_data_ptr<float>();
    const float* const w = weight.const_data_ptr<float>();
    const float* const g = grad.const_data_ptr<float>();
    const float* const c = cosine.numel() > 0 ? cosine.const_data_ptr<float>() : nullptr;
    const float* const s = cosine.numel() > 0 ? saved[4].const_data_ptr<float>() : nullptr;
    const float* const inverses = inverse.const_data_ptr<float>();
    auto* const to = dx.mutable_data_ptr<float>();
    auto* const sums = parts.mutable_data_ptr<float>();
    for_chunks(shape, [&](int64_t b, int64_t first, int64_t end, int64_t chunk) {
      std::vector<float> turned(static_cast<size_t>(width));
      float* const z = turned.data();
      float* const dw = sums + chunk * width;
      for (int64_t t = first; t < end; ++t) {
        const int64_t row = b * shape.tokens + t;
        const float* const xr = in + row * width;
        float* const dr = to + row * width;
        const float r = inverses[row];
        std::copy_n(g + row * width, width, z);
        if (c) rotate(z, c + t * pairs, s + t * pairs, heads, pairs, -1);
        for (int64_t i = 0; i < width; ++i) dw[i] += z[i] * xr[i] * r;
        for (int64_t i = 0; i < width; ++i) z[i] *= w[i];
        const float along = sum_lanes(width, [&](int64_t i) { return z[i] * xr[i]; });
        const float back = along * r * r * r / static_cast<float>(width);
        for (int64_t i = 0; i < width; ++i) dr[i] = z[i] * r - xr[i] * back;
      }
    });
    return {dx, parts.sum(0), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

class ModulatedLayerNorm : public Function<ModulatedLayerNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& given, const at::Tensor& given_scale,
                            const at::Tensor& given_shift, double eps) {
    const at::Tensor x = given.contiguous(), scale = given_scale.contiguous(), shift = given_shift.contiguous();
    const Shape shape(x);
    const int64_t width = shape.width;
    at::Tensor out = at::empty_like(x), statistics = at::empty({shape.batch, shape.tokens, 2}, x.options());
    const float* const in = x.const_data_ptr<float>();
    auto* const to = out.mutable_data_ptr<float>();
    auto* const kept = statistics.mutable_data_ptr<float>();
    for_chunks(shape, [&](int64_t b, int64_t first, int64_t end, int64_t) {
      const float* const s = row_of(scale, b);
      const float* const h = row_of(shift, b);
      for (int64_t row = b * shape.tokens + first; row < b * shape.tokens + end; ++row) {
        const float* const xr = in + row * width;
        float* const yr = to + row * width;
        const float mean = sum_lanes(width, [&](int64_t i) { return xr[i]; }) / static_cast<float>(width);
        const float squares = sum_lanes(width, [&](int64_t i) { return (xr[i] - mean) * (xr[i] - mean); });
        const float r = 1.0F / std::sqrt(squares / static_cast<float>(width) + static_cast<float>(eps));
        for (int64_t i = 0; i < width; ++i) yr[i] = (xr[i] - mean) * r * (1 + s[i]) + h[i];
        kept[2 * row] = mean;
        kept[2 * row + 1] = r;
      }
    });
    context->save_for_backward({x, scale, statistics});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1];
    const at::Tensor grad = grads[0].contiguous();
    const Shape shape(x);
    const int64_t width = shape.width;
    at::Tensor dx = at::empty_like(x);
    at::Tensor scale_parts = at::zeros({shape.chunks(), width}, x.options()), shift_parts = at::zeros_like(scale_parts);
    const float* const in = x.const_data_ptr<float>();
    const float* const g = grad.const_data_ptr<float>();
    const float* const kept = saved[2].const_data_ptr<float>();
    auto* const to = dx.mutable_data_ptr<float>();
    auto* const scale_sums = scale_parts.mutable_data_ptr<float>();
    auto* const shift_sums = shift_parts.mutable_data_ptr<float>();
    for_chunks(shape, [&](int64_t b, int64_t first, int64_t end, int64_t chunk) {
      const float* const s = row_of(scale, b);
      float* const ds = scale_sums + chunk * width;
      float* const dh = shift_sums + chunk * width;
      for (int64_t row = b * shape.tokens + first; row < b * shape.tokens + end; ++row) {
        const float* const xr = in + row * width;
        const float* const gr = g + row * width;
        float* const dr = to + row * width;
        const float mean = kept[2 * row], r = kept[2 * row + 1], n = static_cast<float>(width);
        for (int64_t i = 0; i < width; ++i) {
          dh[i] += gr[i];
          ds[i] += gr[i] * (xr[i] - mean) * r;
          dr[i] = gr[i] * (1 + s[i]);
        }
        const float sum = sum_lanes(width, [&](int64_t i) { return dr[i]; }) / n;
        const float along = sum_lanes(width, [&](int64_t i) { return dr[i] * (xr[i] - mean); }) * r * r / n;
        for (int64_t i = 0; i < width; ++i) dr[i] = r * (dr[i] - sum - (xr[i] - mean) * along);
      }
    });
    return {dx, sum_chunks(scale_parts, shape, scale), sum_chunks(shift_parts, shape, scale), at::Tensor()};
  }
};

class AddGated : public Function<AddGated> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& a,
                            const at::Tensor& gate) {
    context->save_for_backward({a.contiguous(), gate.contiguous()});
    return at::addcmul(x, a, gate);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &a = saved[0], &gate = saved[1];
    const at::Tensor grad = grads[0].contiguous();
    const Shape shape(a);
    const int64_t width = shape.width;
    at::Tensor da = at::empty_like(a), parts = at::zeros({shape.chunks(), width}, a.options());
    const float* const in = a.const_data_ptr<float>();
    const float* const g = grad.const_data_ptr<float>();
    auto* const to = da.mutable_data_ptr<float>();
    auto* const sums = parts.mutable_data_ptr<float>();
    for_chunks(shape, [&](int64_t b, int64_t first, int64_t end, int64_t chunk) {
      const float* const factor = row_of(gate, b);
      float* const dg = sums + chunk * width;
      for (int64_t row = b * shape.tokens + first; row < b * shape.tokens + end; ++row) {
        const float* const ar = in + row * width;
        const float* const gr = g + row * width;
        float* const dr = to + row * width;
        for (int64_t i = 0; i < width; ++i) {
          dg[i] += ar[i] * gr[i];
          dr[i] = factor[i] * gr[i];
        }
      }
    });
    return {grad, da, sum_chunks(parts, shape, gate)};
  }
};

}  // namespace

bool takes_recorded_rows(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 3; }

bool takes_recorded_modulation(const at::Tensor& x, const at::Tensor& modulation) {
  return takes_recorded_rows(x) && modulation.dim() == 3 && modulation.scalar_type() == at::kFloat &&
         modulation.size(1) == 1 && modulation.size(2) == x.size(2) &&
         (modulation.size(0) == 1 || modulation.size(0) == x.size(0));
}

at::Tensor recorded_rms_norm_rope(const at::Tensor& x, const at::Tensor& weight, double eps, int64_t heads,
                                  const at::Tensor& cosine, const at::Tensor& sine) {
  // Autograd takes no undefined tensors.
  const at::Tensor none = at::empty({0}, x.options().requires_grad(false));
  return RmsNormRope::apply(x, weight, eps, heads, cosine.defined() ? cosine : none, sine.defined() ? sine : none);
}

at::Tensor recorded_modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift,
                                         double eps) {
  return ModulatedLayerNorm::apply(x, scale, shift, eps);
}

at::Tensor recorded_add_gated(const at::Tensor& x, const at::Tensor& a, const at::Tensor& gate) {
  return AddGated::apply(x, a, gate);
}

}  // namespace strobe::models
