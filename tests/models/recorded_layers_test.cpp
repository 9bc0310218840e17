#include "models/recorded_layers.h"

#include "core/torch.h"
// After the precompiled header.
#include <gtest/gtest.h>

#include "core/noise.h"
#include "models/layers.h"
#include "models/rope.h"

namespace strobe::models {
namespace {

// The plain layers in float64, from single operators.
at::Tensor plain_rms_norm_rope(const at::Tensor& x, const at::Tensor& weight, int64_t heads, const RopeTables& rope) {
  const at::Tensor normed = x * at::rsqrt(x.square().mean(-1, true) + 1e-6) * weight;
  if (!rope.cosine.defined()) return normed;
  const at::Tensor pairs = normed.view({x.size(0), x.size(1), heads, -1, 2});
  const at::Tensor even = pairs.select(-1, 0), odd = pairs.select(-1, 1);
  const at::Tensor c = rope.cosine.to(at::kDouble).unsqueeze(1), s = rope.sine.to(at::kDouble).unsqueeze(1);
  return at::stack({even * c - odd * s, even * s + odd * c}, -1).view(x.sizes());
}

// Result and gradients of `fast` in float32 against those of `plain` in float64.
void expect_same(const std::vector<at::Tensor>& inputs,
                 const std::function<at::Tensor(const std::vector<at::Tensor>&)>& fast,
                 const std::function<at::Tensor(const std::vector<at::Tensor>&)>& plain) {
  std::vector<at::Tensor> narrow, wide;
  for (const at::Tensor& input : inputs) {
    narrow.push_back(input.clone().set_requires_grad(true));
    wide.push_back(input.to(at::kDouble).set_requires_grad(true));
  }
  const at::Tensor a = fast(narrow), b = plain(wide);
  const auto is_close = [](const at::Tensor& x, const at::Tensor& y) {
    return (x.to(at::kDouble) - y).norm().item<double>() <= 2e-6 * y.norm().item<double>();
  };
  EXPECT_TRUE(is_close(a.detach(), b.detach()));
  const at::Tensor direction = draw_noise(77, a.sizes().vec());
  (a * direction).sum().backward();
  (b * direction.to(at::kDouble)).sum().backward();
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(is_close(narrow[i].grad(), wide[i].grad())) << "input " << i;
}

TEST(RecordedLayers, give_the_gradients_of_the_plain_layers) {
  constexpr double kEps = 1e-6;
  const TokenGrid grid{.frames = 3, .rows = 5, .cols = 7};
  for (const int64_t head_width : {64, 20}) {
    const int64_t heads = 3, width = heads * head_width, tokens = grid.video_tokens();
    const at::Tensor x = draw_noise(1, {2, tokens, width}), weight = draw_noise(2, {width}).add_(1);
    for (const bool has_rope : {true, false}) {
      const RopeTables rope = has_rope ? make_rope_3d(grid, head_width, 1024, at::kCPU) : RopeTables();
      expect_same(
          {x, weight}, [&](const auto& in) { return rms_norm_rope(in[0], in[1], kEps, heads, rope.cosine, rope.sine); },
          [&](const auto& in) { return plain_rms_norm_rope(in[0], in[1], heads, rope); });
    }
    for (const int64_t rows : {2, 1}) {
      const at::Tensor scale = draw_noise(3, {rows, 1, width}), shift = draw_noise(4, {rows, 1, width});
      expect_same(
          {x, scale, shift},
          [&](const auto& in) { return modulated_layer_norm(in[0], in[1], in[2], kEps, at::kFloat); },
          [&](const auto& in) { return at::layer_norm(in[0], {width}, {}, {}, kEps) * (in[1] + 1) + in[2]; });
      expect_same(
          {x, draw_noise(5, {2, tokens, width}), scale},
          [](const auto& in) { return recorded_add_gated(in[0], in[1], in[2]); },
          [](const auto& in) { return in[0] + in[1] * in[2]; });
    }
  }
}

TEST(RecordedLayers, give_the_same_bits_whatever_the_number_of_threads) {
  const at::Tensor x = draw_noise(1, {3, 200, 96}), scale = draw_noise(2, {3, 1, 96});
  const auto gradients = [&](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    std::vector<at::Tensor> inputs = {x.clone().set_requires_grad(true), scale.clone().set_requires_grad(true)};
    modulated_layer_norm(inputs[0], inputs[1], at::zeros_like(scale), 1e-6, at::kFloat).pow(3).sum().backward();
    at::set_num_threads(before);
    return at::cat({inputs[0].grad().flatten(), inputs[1].grad().flatten()});
  };
  EXPECT_TRUE(at::equal(gradients(1), gradients(2)));
}

}  // namespace
}  // namespace strobe::models
