#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/attention/patterns/method_case.h"

namespace strobe::attention {
namespace {

using test_support::levels_of;
using test_support::MethodCase;
using test_support::random_tokens;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Topk, keeps_the_blocks_of_largest_softmax_mass) {
  const at::Tensor q = random_tokens(1, {1, 2, 96, 8}), k = random_tokens(2, {1, 2, 96, 8});
  const at::Tensor levels = levels_of(*MethodCase("topk:keep=.25,block_size=8,query_block=16").plan(q, k).layout);
  const at::Tensor weights = at::softmax(at::matmul(q, k.transpose(2, 3)) / std::sqrt(8.0), 3);
  const at::Tensor mass = weights.view({2, 6, 16, 12, 8}).sum(4).sum(2);
  const at::Tensor best = at::zeros_like(levels).scatter_(2, std::get<1>(at::topk(mass, 3, 2)), 1);
  EXPECT_TRUE(at::equal(levels, best));
}

TEST(Topk, rounds_halves_up_and_keeps_at_least_one) {
  const at::Tensor x = random_tokens(1, {1, 1, 80, 8});
  for (const auto& [keep, count] :
       std::map<std::string, int64_t>{{"0", 1}, {".04", 1}, {".25", 3}, {".24", 2}, {"1", 10}}) {
    const LayoutPtr layout = MethodCase("topk:block_size=8,keep=" + keep).plan(x, x).layout;
    EXPECT_EQ(layout->kept_blocks(), 10 * count) << keep;
    EXPECT_EQ(layout->is_full(), count == 10);
  }
}

TEST(Topk, prefers_the_smaller_index_among_equal_blocks) {
  const at::Tensor x = at::ones({1, 1, 64, 8});
  const at::Tensor levels = levels_of(*MethodCase("topk:block_size=8,keep=.25").plan(x, x).layout);
  EXPECT_TRUE((levels.narrow(2, 0, 2) == 1).all().item<bool>());
}

TEST(Topk, keeps_text_beyond_the_budget_on_either_end) {
  for (const bool is_text_first : {false, true}) {
    MethodCase topk("topk:block_size=8,keep=.1");
    topk.site.grid = {.frames = 1, .rows = 6, .cols = 10, .text_tokens = 20, .is_text_first = is_text_first};
    const at::Tensor q = random_tokens(1, {1, 2, 80, 8}), k = random_tokens(2, {1, 2, 80, 8});
    const at::Tensor levels = levels_of(*topk.plan(q, k).layout);
    const int64_t first = is_text_first ? 0 : 7, rows = is_text_first ? 3 : 0;  // text is 0..19 or 60..79
    EXPECT_TRUE((levels.narrow(2, first, 3) == 1).all().item<bool>());
    EXPECT_TRUE((levels.narrow(1, first, 3) == 1).all().item<bool>());
    EXPECT_TRUE((levels.narrow(1, rows, 7).sum({2}) == 4).all().item<bool>());
  }
}

TEST(Topk, plans_for_any_length_and_head_count) {
  for (const int64_t tokens : {1, 63, 64, 65, 200}) {
    MethodCase("topk")
        .plan(random_tokens(1, {1, 1, tokens, 8}), random_tokens(2, {1, 1, tokens, 8}))
        .layout->validate();
  }
}

TEST(Topk, refuses_what_does_not_fit) {
  EXPECT_THAT([] { make_rule(ConfigNode::string("topk:keep=1.1")); },
              ThrowsMessage<ConfigError>(HasSubstr("topk: keep: expected a number in [0, 1], found '1.1'")));
  EXPECT_THAT([] { make_rule(ConfigNode::string("topk:block_size=0")); },
              ThrowsMessage<ConfigError>(HasSubstr("topk: block_size")));
}

}  // namespace
}  // namespace strobe::attention
