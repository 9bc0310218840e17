#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attention/schedule.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

AttentionRule rule(const std::string& text) { return make_rule(ConfigNode::string(text)); }

TEST(IndexSet, reads_inclusive_ranges) {
  const IndexSet set = IndexSet::parse("0-4/9").value();
  EXPECT_TRUE(set.contains(0) && set.contains(4) && set.contains(9));
  EXPECT_FALSE(set.contains(5) || set.contains(10));
  EXPECT_EQ(set.last(), 9);
  EXPECT_EQ(set.text(), "0-4/9");
  EXPECT_TRUE(IndexSet::parse("")->contains(1000));
  for (const char* text : {"4-2", "a", "1,2", "-3", "1-", "/"}) EXPECT_FALSE(IndexSet::parse(text)) << text;
}

TEST(Schedule, matches_by_step_layer_head_and_sigma) {
  const AttentionRule r = rule("dense:layers=2/4,heads=0-1,steps=3-9,sigma_max=0.93");
  AttentionSite site{.layer = 4, .step = 3, .steps = 50, .sigma = 0.93};
  EXPECT_TRUE(r.matches(site, 1));
  EXPECT_FALSE(r.matches(site, 2));
  site.sigma = 0.94;
  EXPECT_FALSE(r.matches(site, 1));
  site.sigma = 0.5;
  site.layer = 3;
  EXPECT_FALSE(r.matches(site, 1));
}

TEST(Schedule, refuses_what_it_does_not_know_with_the_nearest_name) {
  EXPECT_THAT([] { rule("dence"); }, ThrowsMessage<ConfigError>(HasSubstr("did you mean 'dense'?")));
  EXPECT_THAT([] { rule("dense:layer=3"); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("'layer'"), HasSubstr("did you mean 'layers'?"))));
  EXPECT_THAT(
      [] { rule("dense:dense_steps=x"); },
      ThrowsMessage<ConfigError>(HasSubstr("dense: dense_steps: expected an integer in [0, 1000000], found 'x'")));
  EXPECT_THAT([] { rule("dense:dense_steps"); }, ThrowsMessage<ConfigError>(HasSubstr("expected key=value")));
  EXPECT_THAT([] { rule("dense:heads=0,heads=1"); }, ThrowsMessage<ConfigError>(HasSubstr("given twice")));
  EXPECT_THAT([] { rule("dense:preset=x"); }, ThrowsMessage<ConfigError>(HasSubstr("preset")));
}

TEST(Schedule, refuses_rules_that_name_what_a_run_has_not) {
  const RunRange run{.steps = 4, .layers = 2, .heads = 12};
  EXPECT_NO_THROW(rule("window:steps=0-3,layers=0/1,heads=11").check_range(run));
  EXPECT_NO_THROW(rule("window").check_range(run));
  const auto refused = [&run](const std::string& text, const std::string& message) {
    EXPECT_THAT([&] { rule(text).check_range(run); }, ThrowsMessage<ConfigError>(HasSubstr(message))) << text;
  };
  refused("window:layers=0/2", "--attention window: layers=0/2: this run has the layers 0 to 1");
  refused("radial:heads=5-12", "--attention radial: heads=5-12: this run has the heads 0 to 11");
  refused("dense:steps=40-49", "--attention dense: steps=40-49: this run has the steps 0 to 3");
}

TEST(Schedule, refuses_a_block_that_holds_every_token) {
  EXPECT_THAT(rule("adaspa:block_size=64").check_block(64), ::testing::IsEmpty());
  EXPECT_THAT([] { rule("adaspa:block_size=128").check_block(100); },
              ThrowsMessage<ConfigError>(
                  HasSubstr("--attention adaspa: a block of 128 is larger than the sequence of 100 tokens")));
  EXPECT_THROW(rule("sparsed:block_size=8,query_block=256").check_block(100), ConfigError);
  // The method's own size is no demand of the user.
  EXPECT_THAT(rule("adaspa").check_block(10), HasSubstr("nothing can be dropped"));
  EXPECT_THAT(rule("vmoba").check_block(1), ::testing::IsEmpty());
}

TEST(Schedule, refuses_states_above_the_bound) {
  const AttentionSite site{.layers = 30, .grid = {.frames = 8, .rows = 16, .cols = 16}};
  const AttentionRule own = rule("sparsed:block_size=64"), shared = rule("sparsed:block_size=64,share_branches=1");
  const int64_t one = own.pattern->state_bytes(site.grid, /*heads=*/12);
  ASSERT_GT(one, 0);
  EXPECT_NO_THROW(own.check_states(site, 12, 60 * one));
  EXPECT_THROW(own.check_states(site, 12, 60 * one - 1), UnsupportedError);
  EXPECT_NO_THROW(shared.check_states(site, 12, 30 * one));
}

TEST(Schedule, takes_maps_and_lists) {
  ConfigNode map = ConfigNode::map({{"method", ConfigNode::string("dense")}, {"min_tokens", ConfigNode::integer(7)}});
  map.set("options", ConfigNode::map({{"layers", ConfigNode::list({ConfigNode::integer(1), ConfigNode::integer(3)})}}));
  const auto rules = make_rules(ConfigNode::list({ConfigNode::string("dense"), map}));
  ASSERT_EQ(rules.size(), 2U);
  EXPECT_EQ(rules[1].min_tokens, 7);
  EXPECT_TRUE(rules[1].layers.contains(3));
  EXPECT_FALSE(rules[1].layers.contains(2));
  EXPECT_TRUE(make_rules(ConfigNode::null()).empty());
}

}  // namespace
}  // namespace strobe::attention
