#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/parallel.h"
#include "models/layers.h"
#include "models/recorded_layers.h"

namespace strobe::models {
namespace {

constexpr int64_t kLanes = 16;

// Sum of squares in kLanes partial sums: a fixed order, and wide enough for any vector unit.
float mean_of_squares(const float* x, int64_t size) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  }
  double sum = 0;
  for (float lane : lanes) sum += lane;
  for (; i < size; ++i) sum += static_cast<double>(x[i]) * x[i];
  return static_cast<float>(sum / static_cast<double>(size));
}

void scale_row(float* x, const float* weight, float inverse, int64_t size) {
  for (int64_t i = 0; i < size; ++i) x[i] = x[i] * inverse * weight[i];
}

void rotate_head(float* z, const float* cosine, const float* sine, int64_t pairs) {
  for (int64_t j = 0; j < pairs; ++j) {
    const float even = z[2 * j], odd = z[2 * j + 1];
    z[2 * j] = even * cosine[j] - odd * sine[j];
    z[2 * j + 1] = even * sine[j] + odd * cosine[j];
  }
}

// float32 on the CPU: one pass over memory.
void rms_norm_rope_rows(float* x, const float* weight, double eps, int64_t rows, int64_t tokens, int64_t heads,
                        int64_t width, const float* cosine, const float* sine) {
  const int64_t pairs = width / heads / 2;
  parallel_for(0, rows, 32, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* z = x + row * width;
      const float inverse = 1.0F / std::sqrt(mean_of_squares(z, width) + static_cast<float>(eps));
      scale_row(z, weight, inverse, width);
      if (!cosine) continue;
      const int64_t token = row % tokens;
      for (int64_t head = 0; head < heads; ++head) {
        rotate_head(z + head * 2 * pairs, cosine + token * pairs, sine + token * pairs, pairs);
      }
    }
  });
}

}  // namespace

at::Tensor Linear::operator()(const at::Tensor& x) const { return at::linear(x, weight, bias); }

Linear load_linear(const weights::WeightStore& store, const std::string& name, at::ScalarType dtype,
                   at::Device device) {
  Linear linear;
  linear.weight = store.load(name + ".weight", dtype, device);
  if (store.contains(name + ".bias")) linear.bias = store.load(name + ".bias", dtype, device);
  return linear;
}

bool is_recorded(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, double eps,
                                at::ScalarType dtype) {
  const int64_t width = x.size(-1);
  if ((is_recorded(x) || is_recorded(scale)) && dtype == at::kFloat && takes_recorded_modulation(x, scale) &&
      scale.sizes() == shift.sizes()) {
    return recorded_modulated_layer_norm(x, scale, shift, eps);
  }
  // One modulation for all tokens of the batch is layer_norm's own weight and bias: a pass over memory instead of
  // three.
  if (scale.numel() == width) {
    return at::layer_norm(x.to(at::kFloat), {width}, scale.reshape({width}) + 1.0, shift.reshape({width}), eps)
        .to(dtype);
  }
  at::Tensor normed = at::layer_norm(x.to(at::kFloat), {width}, {}, {}, eps);
  if (is_recorded(normed) || is_recorded(scale)) return at::addcmul(shift, normed, scale + 1.0).to(dtype);
  return normed.mul_(scale + 1.0).add_(shift).to(dtype);
}

at::Tensor add_gated(at::Tensor x, const at::Tensor& a, const at::Tensor& gate, at::ScalarType dtype) {
  const bool is_any_recorded = is_recorded(x) || is_recorded(a) || is_recorded(gate);
  if (dtype == at::kFloat && !is_any_recorded) return x.addcmul_(a, gate);
  if (dtype == at::kFloat && takes_recorded_modulation(x, gate)) return recorded_add_gated(x, a, gate);
  return at::addcmul(x.to(at::kFloat), a.to(at::kFloat), gate).to(dtype);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  at::Tensor wide = x.to(at::kFloat);
  at::Tensor inverse = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  at::Tensor scaled = wide * inverse;
  if (is_recorded(scaled) || is_recorded(weight)) return (scaled * weight.to(at::kFloat)).to(x.scalar_type());
  return scaled.mul_(weight.to(at::kFloat)).to(x.scalar_type());
}

at::Tensor rms_norm_rope(at::Tensor x, const at::Tensor& weight, double eps, int64_t heads, const at::Tensor& cosine,
                         const at::Tensor& sine) {
  const int64_t batch = x.size(0), tokens = x.size(1), width = x.size(2);
  STROBE_CHECK(width % heads == 0 && weight.numel() == width, "rms_norm_rope: width {} does not fit {} heads", width,
               heads);
  if (x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && !is_recorded(x) &&
      !is_recorded(weight)) {
    x = x.contiguous();
    rms_norm_rope_rows(x.data_ptr<float>(), weight.const_data_ptr<float>(), eps, batch * tokens, tokens, heads, width,
                       cosine.defined() ? cosine.const_data_ptr<float>() : nullptr,
                       sine.defined() ? sine.const_data_ptr<float>() : nullptr);
    return x;
  }
  if (takes_recorded_rows(x) && weight.scalar_type() == at::kFloat) {
    return recorded_rms_norm_rope(x, weight, eps, heads, cosine, sine);
  }
  at::Tensor normed = rms_norm(x, weight, eps);
  if (!cosine.defined()) return normed;
  at::Tensor pairs = normed.to(at::kFloat).view({batch, tokens, heads, width / heads / 2, 2});
  at::Tensor even = pairs.select(-1, 0), odd = pairs.select(-1, 1);
  at::Tensor c = cosine.unsqueeze(1), s = sine.unsqueeze(1);
  return at::stack({even * c - odd * s, even * s + odd * c}, -1).view({batch, tokens, width}).to(x.scalar_type());
}

at::Tensor timestep_sinusoid(const at::Tensor& timesteps, int64_t width) {
  const int64_t half = width / 2;
  at::Tensor frequencies = at::exp(at::arange(half, timesteps.options().dtype(at::kFloat)) *
                                   (-std::log(10000.0) / static_cast<double>(half)));
  at::Tensor angles = timesteps.to(at::kFloat).unsqueeze(-1) * frequencies;
  return at::cat({at::cos(angles), at::sin(angles)}, -1);
}

}  // namespace strobe::models
