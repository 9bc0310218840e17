#include "training/optimizer.h"

#include "core/torch.h"
// After the precompiled header.
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>

#include "core/error.h"
#include "core/noise.h"
#include "tests/support/temp_folder.h"
#include "training/recipe.h"

namespace strobe::training {
namespace {

const auto kNoMatrix = [](const std::string&, const at::Tensor&) { return false; };
const auto kAllMatrices = [](const std::string&, const at::Tensor&) { return true; };

at::Tensor leaf(uint64_t seed, const std::vector<int64_t>& shape) {
  return draw_noise(seed, shape).set_requires_grad(true);
}

TEST(Optimizer, orthogonalised_matrices_have_singular_values_near_one) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{48, 20}, {20, 48}, {32, 32}}) {
    const at::Tensor values = at::linalg_svdvals(orthogonalised(draw_noise(3, shape), 5));
    // The smallest of a square one begin near 0 and need more steps.
    EXPECT_TRUE(shape[0] == shape[1] || values.min().item<float>() > 0.5) << shape[0];
    EXPECT_GT(values.median().item<float>(), 0.6) << shape[0];
    EXPECT_LT(values.max().item<float>(), 1.3) << shape[0];
  }
  // It turns nothing: the factor of U S V^T is U V^T, so that U^T X V keeps a positive diagonal.
  const at::Tensor x = draw_noise(4, {16, 16});
  const auto [u, s, v] = at::linalg_svd(x);
  const at::Tensor diagonal = at::mm(at::mm(u.t(), orthogonalised(x, 5)), v.t()).diagonal();
  EXPECT_GT(diagonal.min().item<float>(), 0);
}

TEST(Optimizer, AdamW_takes_the_steps_of_LibTorch) {
  at::Tensor ours = leaf(1, {5, 3}), theirs = ours.detach().clone().set_requires_grad(true);
  Optimizer optimizer({{"w", ours}}, kNoMatrix,
                      {.learning_rate = 0.01, .betas = {0.9, 0.98}, .weight_decay = 0.1, .largest_gradient_norm = 0});
  torch::optim::AdamW reference({theirs},
                                torch::optim::AdamWOptions(0.01).betas({0.9, 0.98}).eps(1e-8).weight_decay(0.1));
  const at::Tensor target = draw_noise(2, {5, 3});
  for (int step = 0; step < 5; ++step) {
    (ours - target).pow(4).sum().backward();
    optimizer.step(1);
    reference.zero_grad();
    (theirs - target).pow(4).sum().backward();
    reference.step();
    EXPECT_LT(at::max(at::abs(ours.detach() - theirs.detach())).item<float>(), 2e-6) << step;
  }
}

TEST(Optimizer, a_matrix_moves_by_its_orthogonal_factor_times_the_scaled_rate) {
  at::Tensor weight = leaf(5, {6, 4});
  const at::Tensor before = weight.detach().clone(), gradient = draw_noise(6, {6, 4});
  Optimizer optimizer({{"w", weight}}, kAllMatrices,
                      {.learning_rate = 0.5, .momentum = 0.9, .largest_gradient_norm = 0});
  weight.mutable_grad() = gradient.clone();
  optimizer.step(0.1);
  // The first momentum is the gradient itself, and Nesterov's look-ahead 1.9 of it: of the same direction.
  const at::Tensor expected = before - orthogonalised(gradient, 4) * (0.05 * 0.2 * std::sqrt(6.0));
  EXPECT_LT((weight.detach() - expected).abs().max().item<float>(), 1e-6);
}

TEST(Optimizer, gradients_are_clipped_by_their_common_norm) {
  at::Tensor a = leaf(7, {3}), b = leaf(8, {4});
  const at::Tensor before = a.detach().clone();
  Optimizer optimizer({{"a", a}, {"b", b}}, kNoMatrix, {.learning_rate = 1, .epsilon = 1, .largest_gradient_norm = 1});
  a.mutable_grad() = at::full({3}, 3.0F);
  b.mutable_grad() = at::full({4}, 4.0F);
  EXPECT_NEAR(optimizer.step(1), std::sqrt(3 * 9.0 + 4 * 16.0), 1e-5);
  // With epsilon 1 AdamW's first step is g / (|g| + 1), and g is 3 over the common norm.
  const double g = 3 / std::sqrt(91.0);
  EXPECT_NEAR((before - a.detach())[0].item<float>(), g / (g + 1), 1e-5);
}

TEST(Optimizer, gradients_that_are_not_finite_change_nothing) {
  for (const auto& is_matrix :
       {std::function<bool(const std::string&, const at::Tensor&)>(kNoMatrix), {kAllMatrices}}) {
    at::Tensor weight = leaf(9, {4, 3});
    const at::Tensor before = weight.detach().clone();
    Optimizer optimizer({{"w", weight}}, is_matrix, {.largest_gradient_norm = 1});
    weight.mutable_grad() = at::full({4, 3}, std::numeric_limits<float>::quiet_NaN());
    EXPECT_FALSE(std::isfinite(optimizer.step(1)));
    EXPECT_TRUE(at::equal(weight.detach(), before));
    EXPECT_EQ(optimizer.state().at("steps").item<int64_t>(), 0);
    EXPECT_FALSE(weight.grad().defined());
  }
}

TEST(Optimizer, a_state_that_was_kept_gives_the_same_bits) {
  const auto run = [](Optimizer& optimizer, at::Tensor& w, at::Tensor& m, int steps) {
    for (int i = 0; i < steps; ++i) {
      (w.square().sum() + (m.square().sum() - 1).square()).backward();
      optimizer.step(0.1);
    }
  };
  const auto is_matrix = [](const std::string& name, const at::Tensor&) { return name == "m"; };
  at::Tensor w = leaf(1, {7}), m = leaf(2, {6, 5});
  Optimizer whole({{"w", w}, {"m", m}}, is_matrix, {});
  run(whole, w, m, 2);
  at::Tensor w2 = w.detach().clone().set_requires_grad(true), m2 = m.detach().clone().set_requires_grad(true);
  Optimizer resumed({{"w", w2}, {"m", m2}}, is_matrix, {});
  NamedTensors state;
  for (const auto& [name, tensor] : whole.state()) state[name] = tensor.clone();
  resumed.set_state(state);
  run(whole, w, m, 3);
  run(resumed, w2, m2, 3);
  EXPECT_TRUE(at::equal(w, w2));
  EXPECT_TRUE(at::equal(m, m2));
  state.erase("first.w");
  EXPECT_EQ(test::message_of<WeightError>([&] { resumed.set_state(state); }), "optimizer state: first.w: missing");
}

TEST(MovingAverage, starts_fast_and_ends_slow) {
  at::Tensor w = at::zeros({1});
  MovingAverage average({{"w", w}}, 0.5);
  w.fill_(1);
  average.update({{"w", w}});  // decay 1 / 10
  EXPECT_NEAR(average.weights().at("w").item<float>(), 0.9, 1e-6);
  average.update({{"w", w}});  // 2 / 11
  EXPECT_NEAR(average.weights().at("w").item<float>(), 1 - 0.1 * 2 / 11, 1e-6);
  for (int i = 0; i < 30; ++i) average.update({{"w", w}});
  w.fill_(0);
  average.update({{"w", w}});  // the bound, 0.5
  EXPECT_NEAR(average.weights().at("w").item<float>(), 0.5, 1e-4);
}

TEST(RateSchedule, rises_stays_and_falls) {
  const RateSchedule linear{.warmup_steps = 4, .decay = Decay::kLinear, .decay_share = 0.5, .final_share = 0.1};
  EXPECT_NEAR(rate_at(linear, 0, 0, 100), 0.25, 1e-9);
  EXPECT_NEAR(rate_at(linear, 10, 40, 100), 1, 1e-9);
  EXPECT_NEAR(rate_at(linear, 10, 75, 100), 0.55, 1e-9);
  EXPECT_NEAR(rate_at(linear, 10, 100, 100), 0.1, 1e-9);
  const RateSchedule cosine{.warmup_steps = 0, .decay = Decay::kCosine, .final_share = 0};
  EXPECT_NEAR(rate_at(cosine, 0, 50, 100), 0.5, 1e-9);
  EXPECT_NEAR(rate_at({.warmup_steps = 0, .decay = Decay::kNone}, 5, 99, 100), 1, 1e-9);
}

}  // namespace
}  // namespace strobe::training
