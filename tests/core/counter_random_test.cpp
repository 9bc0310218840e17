#include "core/counter_random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace strobe {
namespace {

TEST(CounterRandom, mixes_as_published) {
  // The first outputs of SplitMix64 with seed 0: the mix of 0 and of its increment.
  EXPECT_EQ(mix_bits(0), 0xe220a8397b1dcdafU);
  EXPECT_EQ(mix_bits(0x9e3779b97f4a7c15U), 0x6e789e6aa1b965f4U);
}

TEST(CounterRandom, is_a_function_of_its_place) {
  CounterRandom first(1, 2, 3), again(1, 2, 3);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t drawn = first.bits();
    EXPECT_EQ(drawn, again.bits());
    seen.insert(drawn);
  }
  for (const CounterRandom& other : {CounterRandom(2, 2, 3), CounterRandom(1, 3, 3), CounterRandom(1, 2, 4)}) {
    CounterRandom stream = other;
    for (int i = 0; i < 1000; ++i) seen.insert(stream.bits());
  }
  EXPECT_EQ(seen.size(), 4000U);
}

TEST(CounterRandom, fills_its_ranges_evenly) {
  CounterRandom random(5);
  int counts[7] = {};
  double sum = 0, low = 1, high = 0;
  constexpr int kDraws = 70'000;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[random.below(7)];
    const double u = random.uniform();
    sum += u, low = std::min(low, u), high = std::max(high, u);
  }
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 7, 500);
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  EXPECT_GE(low, 0);
  EXPECT_LT(high, 1);
}

}  // namespace
}  // namespace strobe
