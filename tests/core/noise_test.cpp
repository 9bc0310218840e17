#include "core/noise.h"

#include "core/torch.h"
#include "tests/support/compare.h"

namespace strobe {

TEST(Noise, gives_the_numbers_of_torch_randn_with_a_manual_seed) {
  // torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
  at::Tensor expected =
      at::tensor({1.54099607F, -0.29342890F, -2.17878938F, 0.56843126F, -1.08452237F, -1.39859545F}).reshape({2, 3});
  EXPECT_TRUE(test::matches(draw_noise(0, {2, 3}), expected, {.relative_l2 = 1e-6}));
}

TEST(Noise, differs_by_seed_and_repeats_for_the_same_seed) {
  EXPECT_TRUE(at::equal(draw_noise(7, {4, 100}), draw_noise(7, {4, 100})));
  EXPECT_FALSE(at::equal(draw_noise(7, {4, 100}), draw_noise(8, {4, 100})));
}

TEST(NoiseStream, gives_in_parts_what_is_drawn_at_once) {
  const at::Tensor whole = draw_noise(5, {64 + 20});
  NoiseStream stream(5);
  EXPECT_TRUE(at::equal(stream.next(16), whole.narrow(0, 0, 16)));
  EXPECT_TRUE(at::equal(stream.next(48), whole.narrow(0, 16, 48)));
  EXPECT_FALSE(at::equal(stream.next(16), whole.narrow(0, 0, 16)));
}

}  // namespace strobe
