#include "sampling/schedule.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/torch.h"

namespace strobe::sampling {
namespace {

struct ScheduleCase {
  const char* name;
  FlowScheduleOptions options;
  std::vector<float> sigmas;     // the leading ones
  std::vector<float> timesteps;  // the leading ones; empty: sigma * 1000
};

std::ostream& operator<<(std::ostream& out, const ScheduleCase& test) { return out << test.name; }

class FlowScheduleTable : public testing::TestWithParam<ScheduleCase> {};

TEST_P(FlowScheduleTable, equals_the_published_numbers) {
  const ScheduleCase& test = GetParam();
  const Schedule schedule = make_flow_schedule(test.options);
  ASSERT_EQ(schedule.steps(), test.options.steps);
  ASSERT_EQ(schedule.sigmas.size(), schedule.timesteps.size() + 1);
  EXPECT_EQ(schedule.sigmas.back(), 0.0F);
  for (size_t i = 0; i < test.sigmas.size(); ++i) EXPECT_NEAR(schedule.sigmas[i], test.sigmas[i], 6e-8) << "at " << i;
  for (size_t i = 0; i < test.timesteps.size(); ++i) EXPECT_EQ(schedule.timesteps[i], test.timesteps[i]) << "at " << i;
  if (test.timesteps.empty()) {
    for (size_t i = 0; i < schedule.timesteps.size(); ++i) {
      EXPECT_EQ(schedule.timesteps[i], schedule.sigmas[i] * 1000.0F);
    }
  }
  for (size_t i = 1; i < schedule.sigmas.size(); ++i) EXPECT_LT(schedule.sigmas[i], schedule.sigmas[i - 1]);
}

// Seven-digit rows are wan.md 7.1 and 7.3, nine-digit rows are diffusers 0.37.0.
INSTANTIATE_TEST_SUITE_P(
    Flow, FlowScheduleTable,
    testing::Values(
        ScheduleCase{"new_3_5",
                     {.steps = 5, .shift = 3},
                     {0.999999F, 0.9231657F, 0.8184296F, 0.6672218F, 0.4297945F, 0},
                     {999, 923, 818, 667, 429}},
        ScheduleCase{"old_3_5",
                     {.steps = 5, .shift = 3, .spacing = FlowSpacing::kUniPcOld},
                     {0.9996665F, 0.9227217F, 0.8178097F, 0.6662961F, 0.4282652F, 0},
                     {999, 922, 817, 666, 428}},
        ScheduleCase{"new_5_4",
                     {.steps = 4, .shift = 5},
                     {0.999999F, 0.9375781F, 0.8336110F, 0.6259361F, 0},
                     {999, 937, 833, 625}},
        ScheduleCase{"new_3_4", {.steps = 4, .shift = 3}, {0.999999F}, {999, 900, 750, 500}},
        ScheduleCase{"new_3_50", {.steps = 50, .shift = 3}, {0.999999F}, {999, 993, 986, 979, 971, 964, 956, 948}},
        ScheduleCase{"new_1_5",
                     {.steps = 5, .shift = 1},
                     {0.999998987F, 0.800199986F, 0.600399971F, 0.400599986F, 0.200800002F, 0},
                     {999, 800, 600, 400, 200}},
        ScheduleCase{
            "new_8_3", {.steps = 3, .shift = 8}, {0.999998987F, 0.941259503F, 0.800479352F, 0}, {999, 941, 800}},
        ScheduleCase{"new_5_1", {.steps = 1, .shift = 5}, {0.999998987F, 0}, {999}},
        ScheduleCase{"new_12_11",
                     {.steps = 11, .shift = 12},
                     {0.999998987F, 0.991744578F, 0.981840014F, 0.969737351F, 0.954613626F, 0.935176194F, 0.909272552F,
                      0.873032272F, 0.818726182F, 0.728360355F, 0.548168242F, 0},
                     {999, 991, 981, 969, 954, 935, 909, 873, 818, 728, 548}},
        ScheduleCase{"euler_3_5",
                     {.steps = 5, .shift = 3, .spacing = FlowSpacing::kEuler},
                     {1, 0.9003591F, 0.7511211F, 0.5029851F, 0.0089286F, 0},
                     {}},
        ScheduleCase{"euler_5_4",
                     {.steps = 4, .shift = 5, .spacing = FlowSpacing::kEuler},
                     {1, 0.9097071F, 0.7173175F, 0.0244141F, 0},
                     {}},
        ScheduleCase{"euler_7_2", {.steps = 2, .shift = 7, .spacing = FlowSpacing::kEuler}, {1, 0.0467557F, 0}, {}},
        ScheduleCase{"euler_3_7",
                     {.steps = 7, .shift = 3, .spacing = FlowSpacing::kEuler},
                     {1, 0.937710464F, 0.857692301F, 0.751121104F, 0.602150559F, 0.379194617F, 0.00892857183F, 0},
                     {}},
        ScheduleCase{"euler_3_1", {.steps = 1, .shift = 3, .spacing = FlowSpacing::kEuler}, {1, 0}, {}},
        ScheduleCase{"distilled_5_4",
                     {.steps = 4, .shift = 5, .spacing = FlowSpacing::kDistilled},
                     {1, 0.9375F, 0.833333333F, 0.625F, 0},
                     {}}),
    [](const auto& row) { return row.param.name; });

TEST(FlowSchedule, refuses_what_is_not_a_schedule) {
  EXPECT_THROW(make_flow_schedule({.steps = 0}), ConfigError);
  EXPECT_THROW(make_flow_schedule({.shift = 0.0}), ConfigError);
  EXPECT_THROW(make_flow_schedule({.shift = -1.0}), ConfigError);
  EXPECT_THROW(make_flow_schedule({.shift = NAN}), ConfigError);
  EXPECT_THROW(make_flow_schedule({.train_timesteps = 0}), ConfigError);
}

}  // namespace
}  // namespace strobe::sampling
