#include "sampling/guider.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"

namespace strobe::sampling {
namespace {

using testing::ElementsAre;

TEST(Cfg, mixes_cond_and_uncond_by_the_scale_of_the_stage) {
  const auto guider = make_guider("cfg", {.scale_per_stage = {4.0, 0.5}});
  EXPECT_EQ(guider->name(), "cfg");
  const at::Tensor cond = at::tensor({1.0F, -1.0F}), uncond = at::tensor({0.5F, 3.0F});
  EXPECT_TRUE(at::equal(guider->combine({.stage = 0}, {cond, uncond}), at::tensor({2.5F, -13.0F})));
  EXPECT_TRUE(at::equal(guider->combine({.stage = 1}, {cond, uncond}), at::tensor({0.75F, 1.0F})));
  EXPECT_TRUE(at::equal(guider->combine({.stage = 7}, {cond, uncond}), at::tensor({0.75F, 1.0F})));
  EXPECT_TRUE(at::equal(uncond, at::tensor({0.5F, 3.0F})));
}

TEST(Cfg, asks_for_both_branches_by_the_first_scale_alone) {
  const GuidanceStep early = {.stage = 0}, late = {.stage = 1};
  const auto on = make_guider("cfg", {.scale_per_stage = {4.0, 1.0}});
  EXPECT_THAT(on->branches(early), ElementsAre(Branch::kCond, Branch::kUncond));
  EXPECT_THAT(on->branches(late), ElementsAre(Branch::kCond, Branch::kUncond));
  const auto off = make_guider("cfg", {.scale_per_stage = {1.0, 4.0}});
  EXPECT_THAT(off->branches(early), ElementsAre(Branch::kCond));
  EXPECT_THAT(off->branches(late), ElementsAre(Branch::kCond));
  const at::Tensor cond = at::tensor({1.0F, -1.0F});
  EXPECT_TRUE(at::equal(off->combine(late, {cond}), cond));
  EXPECT_THROW(off->combine(late, {cond, cond}), ShapeError);
  EXPECT_THROW(on->combine(late, {cond}), ShapeError);
}

TEST(Cfg, refuses_scales_that_are_no_numbers) {
  EXPECT_THROW(make_guider("cfg", {.scale_per_stage = {}}), ConfigError);
  EXPECT_THROW(make_guider("cfg", {.scale_per_stage = {5.0, NAN}}), ConfigError);
}

TEST(Guiders, answer_an_unknown_name_with_the_nearest) {
  EXPECT_STREQ(branch_name(Branch::kCond), "cond");
  EXPECT_STREQ(branch_name(Branch::kUncond), "uncond");
  try {
    make_guider("cgf", {});
    FAIL() << "expected ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("known: cfg"));
  }
}

}  // namespace
}  // namespace strobe::sampling
