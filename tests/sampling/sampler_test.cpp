#include "sampling/sampler.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace strobe::sampling {
namespace {

// wan.md section 12: v = 0.8 tanh(1.3 x + 0.2 i) + W_c x.
Denoise golden_denoise() {
  at::Tensor channel = test::fill_input(20, {16}, 0.3).view({1, 16, 1, 1, 1});
  return
      [channel](const at::Tensor& x, double, int step) { return at::tanh(x * 1.3 + 0.2 * step) * 0.8 + channel * x; };
}

at::Tensor golden_start() { return test::fill_input(21, {1, 16, 2, 3, 3}); }

struct GoldenCase {
  int steps;
  test::GoldenSummary golden;
};

TEST(UniPc, gives_the_golden_numbers_alone) {
  const std::vector<GoldenCase> cases = {
      {1, {.mean = 0.00584620, .rms = 0.47066110}},
      {2, {.mean = -0.05232936, .rms = 0.49161114}},
      {3, {.mean = -0.10819125, .rms = 0.52168970}},
      {5, {.mean = -0.21855379, .rms = 0.60241575, .elements = {-1.0990620, 0.9612247, -1.0124530, 1.0051321}}},
      {20, {.mean = -0.63591318, .rms = 1.09079725}},
  };
  const auto sampler = make_sampler("unipc");
  for (const GoldenCase& row : cases) {
    const Schedule schedule = make_flow_schedule({.steps = row.steps, .shift = 3.0});
    const at::Tensor result = sampler->sample(schedule, {.x = golden_start()}, golden_denoise(), {});
    EXPECT_TRUE(test::matches_summary(result, row.golden, 2e-6)) << "N = " << row.steps;
  }
}

TEST(Samplers, give_the_numbers_of_diffusers) {
  // diffusers 0.37.0, the same velocity, set_begin_index(first); mean, rms and the first four elements.
  struct Row {
    const char* sampler;
    int steps;
    double shift;
    int first;
    test::GoldenSummary golden;
  };
  const std::vector<Row> rows = {
      {"unipc", 7, 8, 0, {-0.34818382, 0.71513566, {-1.2429733, 0.9582129, -1.1798646, 1.0029856}}},
      {"unipc", 9, 5, 4, {-0.38679074, 0.83133174, {-1.4386485, 1.0355734, -1.3803144, 1.0799043}}},
      {"unipc", 5, 3, 2, {-0.19097465, 0.65865595, {-1.1732597, 1.0728536, -1.0794591, 1.1162364}}},
      {"unipc", 5, 3, 4, {-0.10457494, 0.80263151, {-1.3351357, 1.3076533, -1.2263516, 1.3492002}}},
      {"euler", 5, 3, 0, {-0.15798511, 0.55575728, {-1.0468183, 0.9724013, -0.9476144, 1.0157952}}},
      {"euler", 6, 7, 2, {-0.22258010, 0.63196582, {-1.1401770, 1.0198110, -1.0498556, 1.0637300}}},
  };
  for (const Row& row : rows) {
    const auto sampler = make_sampler(row.sampler);
    const Schedule schedule =
        make_flow_schedule({.steps = row.steps, .shift = row.shift, .spacing = sampler->default_spacing()});
    const SamplerState start = {.x = golden_start(), .step = row.first, .first_step = row.first};
    const at::Tensor result = sampler->sample(schedule, start, golden_denoise(), {});
    EXPECT_TRUE(test::matches_summary(result, row.golden, 2e-6)) << row.sampler << " " << row.steps << " " << row.first;
  }
}

TEST(Euler, is_the_plain_loop) {
  const Schedule schedule = make_flow_schedule({.steps = 7, .shift = 3.0, .spacing = FlowSpacing::kEuler});
  const Denoise denoise = golden_denoise();
  at::Tensor x = golden_start();
  for (int i = 0; i < 7; ++i) {
    x = x + denoise(x, schedule.sigmas[i], i) * (schedule.sigmas[i + 1] - schedule.sigmas[i]);
  }
  const at::Tensor result = make_sampler("euler")->sample(schedule, {.x = golden_start()}, denoise, {});
  EXPECT_TRUE(test::matches(result, x, {.relative_l2 = 1e-6}));
}

TEST(Samplers, recover_a_constant_clean_sample_exactly_at_sigma_zero) {
  const at::Tensor clean = test::fill_input(3, {2, 5});
  for (const std::string& name : sampler_names()) {
    for (FlowSpacing spacing :
         {FlowSpacing::kUniPc, FlowSpacing::kUniPcOld, FlowSpacing::kEuler, FlowSpacing::kDistilled}) {
      for (int steps : {1, 2, 3, 6}) {
        const Schedule schedule = make_flow_schedule({.steps = steps, .shift = 5.0, .spacing = spacing});
        const Denoise denoise = [&](const at::Tensor& x, double sigma, int) { return (x - clean) / sigma; };
        const at::Tensor result = make_sampler(name)->sample(schedule, {.x = test::fill_input(4, {2, 5})}, denoise, {});
        EXPECT_TRUE(test::matches(result, clean, {.relative_l2 = 1e-5})) << name << " steps " << steps;
      }
    }
  }
}

TEST(Samplers, continue_from_any_stored_state_with_the_same_bits) {
  for (const std::string& name : sampler_names()) {
    const auto sampler = make_sampler(name);
    for (int steps : {1, 2, 5, 6}) {
      for (int first : {0, 1, 3}) {
        if (first > steps) continue;
        const Schedule schedule =
            make_flow_schedule({.steps = steps, .shift = 3.0, .spacing = sampler->default_spacing()});
        std::vector<SamplerState> states, copies;
        const StepObserver observe = [&](const SamplerState& state) {
          states.push_back(state);
          SamplerState copy = state;
          copy.x = state.x.clone();
          for (at::Tensor& tensor : copy.history) tensor = tensor.clone();
          copies.push_back(copy);
        };
        const SamplerState start = {.x = golden_start(), .step = first, .first_step = first};
        const at::Tensor whole = sampler->sample(schedule, start, golden_denoise(), observe);
        EXPECT_TRUE(at::equal(start.x, golden_start())) << name << " wrote to its start";
        ASSERT_EQ(copies.size(), static_cast<size_t>(steps - first));
        for (size_t i = 0; i < copies.size(); ++i) {
          EXPECT_EQ(copies[i].step, first + static_cast<int>(i) + 1);
          EXPECT_TRUE(at::equal(states[i].x, copies[i].x)) << name << " wrote to a state that was handed out";
          const at::Tensor rest = sampler->sample(schedule, copies[i], golden_denoise(), {});
          EXPECT_TRUE(at::equal(rest, whole)) << name << " cut after step " << i << " of " << steps;
        }
      }
    }
  }
}

TEST(Samplers, starting_late_knows_no_earlier_steps) {
  // Two steps from step 3 of 5 are two steps of a schedule that holds only these sigmas.
  const Schedule full = make_flow_schedule({.steps = 5, .shift = 3.0});
  Schedule tail;
  tail.sigmas = {full.sigmas.begin() + 3, full.sigmas.end()};
  tail.timesteps = {full.timesteps.begin() + 3, full.timesteps.end()};
  const Denoise denoise = [](const at::Tensor& x, double sigma, int) { return at::tanh(x) * (1.0 + sigma); };
  for (const std::string& name : sampler_names()) {
    const auto sampler = make_sampler(name);
    const at::Tensor late = sampler->sample(full, {.x = golden_start(), .step = 3, .first_step = 3}, denoise, {});
    EXPECT_TRUE(at::equal(late, sampler->sample(tail, {.x = golden_start()}, denoise, {}))) << name;
    const at::Tensor none = sampler->sample(full, {.x = golden_start(), .step = 5, .first_step = 5}, denoise, {});
    EXPECT_TRUE(at::equal(none, golden_start())) << name;
  }
}

TEST(Samplers, refuse_a_state_that_does_not_fit) {
  const Schedule schedule = make_flow_schedule({.steps = 4});
  for (const std::string& name : sampler_names()) {
    const auto sampler = make_sampler(name);
    EXPECT_EQ(sampler->name(), name);
    const auto run = [&](SamplerState state) { return sampler->sample(schedule, state, golden_denoise(), {}); };
    EXPECT_THROW(run({}), ShapeError);
    EXPECT_THROW(run({.x = golden_start().to(at::kDouble)}), ShapeError);
    EXPECT_THROW(run({.x = golden_start(), .step = 5}), ShapeError);
    EXPECT_THROW(run({.x = golden_start(), .step = 1, .first_step = 2}), ShapeError);
    EXPECT_THROW(run({.x = golden_start(), .history = {golden_start()}}), ShapeError);
    const Denoise bad = [](const at::Tensor& x, double, int) { return x.slice(1, 0, 8); };
    EXPECT_THROW(sampler->sample(schedule, {.x = golden_start()}, bad, {}), ShapeError);
  }
  EXPECT_THROW(make_sampler("unipc")->sample(schedule, {.x = golden_start(), .step = 1}, golden_denoise(), {}),
               ShapeError);
}

TEST(Samplers, answer_an_unknown_name_with_the_nearest) {
  try {
    make_sampler("unipcc");
    FAIL() << "expected ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("did you mean 'unipc'"), testing::HasSubstr("euler")));
  }
}

TEST(VideoToVideo, starts_where_the_strength_says) {
  EXPECT_EQ(first_step_for_strength(5, 0.6), 2);
  EXPECT_EQ(first_step_for_strength(50, 0.8), 10);
  EXPECT_EQ(first_step_for_strength(4, 0.0), 4);
  EXPECT_EQ(first_step_for_strength(4, 1.0), 0);
  EXPECT_EQ(first_step_for_strength(3, 0.5), 2);
  EXPECT_THROW(first_step_for_strength(4, 1.01), ConfigError);
  EXPECT_THROW(first_step_for_strength(4, -0.1), ConfigError);
  EXPECT_THROW(first_step_for_strength(4, NAN), ConfigError);
}

TEST(VideoToVideo, mixes_clean_sample_and_noise) {
  const at::Tensor clean = at::tensor({1.0F, -2.0F}), noise = at::tensor({0.5F, 4.0F});
  EXPECT_TRUE(at::equal(add_noise(clean, noise, 0.25), at::tensor({0.875F, -0.5F})));
  EXPECT_TRUE(at::equal(clean, at::tensor({1.0F, -2.0F})));
}

}  // namespace
}  // namespace strobe::sampling
