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
