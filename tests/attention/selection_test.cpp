#include "attention/selection.h"

#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace strobe::attention {
namespace {

using ::testing::ElementsAre;

TEST(Selection, puts_larger_values_first_then_smaller_indices_and_nan_last) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores = {-1, 0, inf, -0.0F, 2, nan, 2, -inf, -2, 1e-40F};
  EXPECT_THAT(best_indices(scores.data(), 10, 10), ElementsAre(2, 4, 6, 9, 1, 3, 0, 8, 5, 7));
  EXPECT_THAT(best_indices(scores.data(), 10, 3), ElementsAre(2, 4, 6));
  EXPECT_TRUE(best_indices(scores.data(), 10, 0).empty());
  EXPECT_EQ(best_indices(scores.data(), 10, 99).size(), 10U);
}

TEST(Selection, agrees_with_a_stable_sort) {
  const at::Tensor scores = at::randint(-9, 9, {300}, at::make_generator<at::CPUGeneratorImpl>(1)).to(at::kFloat);
  const at::Tensor order = std::get<1>(at::sort(scores, true, 0, true));
  const auto found = best_indices(scores.const_data_ptr<float>(), 300, 100);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], order[static_cast<int64_t>(i)].item<int64_t>()) << i;
}

TEST(Selection, adds_bits_to_those_that_are_set) {
  const std::vector<float> scores(130, 1);
  std::vector<uint64_t> bits(3);
  bits[2] = 2;
  select_best(scores.data(), 130, 65, bits.data());
  EXPECT_THAT(bits, ElementsAre(~uint64_t{0}, uint64_t{1}, uint64_t{2}));
}

TEST(Selection, counts_the_prefix_that_reaches_a_share) {
  const std::vector<float> sorted = {4, 3, 2, 1};
  EXPECT_EQ(prefix_reaching(sorted.data(), 4, 10, 0.4), 1);
  EXPECT_EQ(prefix_reaching(sorted.data(), 4, 10, 0.41), 2);
  EXPECT_EQ(prefix_reaching(sorted.data(), 4, 10, 1), 4);
  EXPECT_EQ(prefix_reaching(sorted.data(), 4, 20, 1), 4);
  EXPECT_EQ(prefix_reaching(sorted.data(), 4, 10, 0), 1);
}

}  // namespace
}  // namespace strobe::attention
