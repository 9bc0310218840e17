#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attention/engine.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr TokenGrid kGrid{.frames = 5, .rows = 6, .cols = 10};
constexpr int64_t kHeads = 4, kWidth = 32;

AttentionInput random_input(int seed, int64_t batch = 1, const TokenGrid& grid = kGrid) {
  at::manual_seed(static_cast<uint64_t>(seed));
  const auto tensor = [&] { return at::randn({batch, grid.tokens(), kHeads, kWidth}).transpose(1, 2) * 1.5; };
  return {.q = tensor(), .k = tensor(), .v = tensor(), .key_bias = {}};
}

AttentionSite site_at(int step, int layer = 1, Branch branch = Branch::kCond, const TokenGrid& grid = kGrid) {
  return {.layer = layer, .layers = 3, .branches = {branch}, .step = step, .steps = 20, .sigma = 0.5, .grid = grid};
}

EngineOptions rules(const std::vector<std::string>& texts, int64_t cache_bytes = kDefaultCacheBytes) {
  EngineOptions options{.rules = {}, .cache_bytes = cache_bytes};
  for (const std::string& text : texts) options.rules.push_back(make_rule(ConfigNode::string(text)));
  return options;
}

double relative_l2(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

TEST(AttentionEngine, dense_is_softmax_attention) {
  AttentionEngine engine;
  const AttentionInput input = random_input(0, 2);
  AttentionSite site = site_at(0);
  site.branches = {Branch::kCond, Branch::kUncond};
  const at::Tensor out = engine(site, input);
  EXPECT_LT(relative_l2(out, at::scaled_dot_product_attention(input.q, input.k, input.v)), 1e-5);
  ASSERT_EQ(engine.stats().rows().size(), 1U);
  EXPECT_EQ(engine.stats().rows()[0].pattern, "dense");
  EXPECT_EQ(engine.stats().rows()[0].density(), 1);
}

TEST(AttentionEngine, a_method_that_keeps_everything_gives_the_bits_of_dense) {
  AttentionEngine dense, engine(rules({"window:window=99/99/99,dense_steps=0", "radial:layers=2"}));
  const AttentionInput input = random_input(1);
  EXPECT_TRUE(at::equal(engine(site_at(3), input), dense(site_at(3), input)));
}

TEST(AttentionEngine, heads_of_one_layer_follow_their_own_rules) {
  const AttentionInput input = random_input(2);
  AttentionEngine engine(rules({"window:window=1/1/1,block_size=16,dense_steps=0",
                                "radial:block_size=16,dense_steps=0,dense_layers=0,heads=1/3"}));
  const at::Tensor out = engine(site_at(5), input);
  for (const auto& [heads, rule] : std::vector<std::pair<std::vector<int64_t>, std::string>>{
           {{0, 2}, "window:window=1/1/1,block_size=16,dense_steps=0"},
           {{1, 3}, "radial:block_size=16,dense_steps=0,dense_layers=0"}}) {
    AttentionEngine alone(rules({rule}));
    const at::Tensor expected = alone(site_at(5), input);
    for (const int64_t head : heads) EXPECT_TRUE(at::equal(out.select(1, head), expected.select(1, head))) << head;
  }
  ASSERT_EQ(engine.stats().sites().size(), 1U);
  EXPECT_EQ(engine.stats().sites()[0].method, "window+radial");
  EXPECT_LT(engine.stats().sites()[0].density(), 1);
}

TEST(AttentionEngine, the_last_rule_that_matches_wins_and_what_none_matches_is_dense) {
  AttentionEngine engine(rules({"window:window=1/1/1,block_size=16,layers=0-1,dense_steps=0", "dense:steps=4"}));
  for (const int step : {3, 4}) {
    for (const int layer : {1, 2}) engine(site_at(step, layer), random_input(3));
  }
  const std::vector<SiteRow>& sites = engine.stats().sites();
  ASSERT_EQ(sites.size(), 4U);
  EXPECT_EQ(sites[0].method, "window");
  EXPECT_EQ(sites[1].method, "dense");
  EXPECT_EQ(sites[2].method, "dense");
  EXPECT_EQ(sites[3].method, "dense");
}

TEST(AttentionEngine, says_why_a_method_ran_dense) {
  AttentionEngine engine(rules({"window:window=1/1/1,block_size=16,dense_steps=4,dense_layers=1,min_tokens=299"}));
  engine(site_at(3), random_input(4));
  EXPECT_EQ(engine.stats().rows()[0].note, "first 4 steps dense");
  engine(site_at(4, 0), random_input(4));
  EXPECT_EQ(engine.stats().rows()[1].note, "first 1 layers dense");
  engine(site_at(4), random_input(4));
  EXPECT_EQ(engine.stats().rows()[2].note, "");
  EXPECT_LT(engine.stats().rows()[2].density(), 1);
}

TEST(AttentionEngine, a_static_layout_is_planned_once_a_grid) {
  AttentionEngine engine(rules({"window:window=1/1/1,block_size=16,dense_steps=0"}));
  const TokenGrid other{.frames = 3, .rows = 6, .cols = 10};
  for (int step = 0; step < 3; ++step) {
    for (int layer = 0; layer < 2; ++layer) engine(site_at(step, layer), random_input(5));
  }
  engine(site_at(3, 0, Branch::kCond, other), random_input(5, 1, other));
  EXPECT_EQ(engine.cache_counts().misses, 2);
  EXPECT_EQ(engine.cache_counts().hits, 5);
  EXPECT_EQ(engine.cache().size(), 2U);
}

TEST(AttentionEngine, two_grids_in_one_engine_give_what_two_engines_give) {
  const TokenGrid other{.frames = 2, .rows = 7, .cols = 9};
  const std::string rule = "radial:block_size=16,dense_steps=0,dense_layers=0";
  AttentionEngine both(rules({rule})), first(rules({rule})), second(rules({rule}));
  for (int step = 0; step < 2; ++step) {
    EXPECT_TRUE(at::equal(both(site_at(step), random_input(6)), first(site_at(step), random_input(6))));
    EXPECT_TRUE(at::equal(both(site_at(step, 1, Branch::kCond, other), random_input(7, 1, other)),
                          second(site_at(step, 1, Branch::kCond, other), random_input(7, 1, other))));
  }
}

TEST(AttentionEngine, the_cache_is_bounded) {
  AttentionEngine engine(rules({"topk:keep=0.3,block_size=16,refresh_every_steps=100"}, 3 << 10));
  for (int layer = 0; layer < 6; ++layer) engine(site_at(0, layer), random_input(8));
  EXPECT_LE(engine.cache().bytes(), 3 << 10);
  EXPECT_GT(engine.cache_counts().evictions, 0);
  EXPECT_EQ(engine.cache_counts().misses, 6);
}

TEST(AttentionEngine, refreshes_a_plan_as_often_as_asked) {
  AttentionEngine engine(rules({"topk:keep=0.3,block_size=16,refresh_every_steps=3"}));
  for (int step = 0; step < 7; ++step) engine(site_at(step), random_input(20 + step));
  EXPECT_EQ(engine.stats().rows()[0].plans, 3);
  EXPECT_EQ(engine.cache_counts().hits, 4);
  EXPECT_EQ(engine.cache_counts().refreshes, 2);
}

TEST(AttentionEngine, branches_share_a_plan_only_when_asked) {
  for (const bool shares : {false, true}) {
    AttentionEngine engine(rules({fmt::format("topk:keep=0.3,block_size=16,share_branches={}", shares ? 1 : 0)}));
    for (int step = 0; step < 2; ++step) {
      engine(site_at(step), random_input(9));
      engine(site_at(step, 1, Branch::kUncond), random_input(10));
    }
    EXPECT_EQ(engine.stats().rows()[0].plans, shares ? 2 : 4);
    EXPECT_EQ(engine.stats().rows()[0].cache_hits, shares ? 2 : 0);
  }
}

TEST(AttentionEngine, goes_on_from_the_states_of_another) {
  for (const std::string rule : {"adaspa:block_size=16,search_steps=2/5", "sparsed:block_size=16,skip=0.2"}) {
    AttentionEngine whole(rules({rule})), first(rules({rule})), second(rules({rule}));
    for (int step = 0; step < 4; ++step) {
      whole(site_at(step), random_input(step));
      first(site_at(step), random_input(step));
    }
    second.set_states(first.states());
    for (int step = 4; step < 8; ++step) {
      EXPECT_TRUE(at::equal(second(site_at(step), random_input(step)), whole(site_at(step), random_input(step))))
          << rule << " step " << step;
    }
    EXPECT_LT(second.stats().rows().back().density(), 1);
  }
}

TEST(AttentionEngine, refuses_states_above_the_bound_with_the_bytes_needed) {
  AttentionEngine engine(rules({"adaspa:block_size=16,search_steps=0/5"}, 1 << 10));
  EXPECT_THAT([&] { engine(site_at(0), random_input(11)); },
              ThrowsMessage<UnsupportedError>(AllOf(HasSubstr("--pattern-cache-mib"), HasSubstr("3 layers"))));
}

TEST(AttentionEngine, a_forced_backend_that_cannot_says_why) {
  EngineOptions options = rules({"window:window=1/1/1,block_size=16,dense_steps=0"});
  options.backend = "torch_dense";
  AttentionEngine engine(std::move(options));
  EXPECT_THAT([&] { engine(site_at(0), random_input(12)); },
              ThrowsMessage<UnsupportedError>(HasSubstr("torch_dense: dense attention only")));
  EXPECT_THAT([] { make_backends("torch_dence"); }, ThrowsMessage<ConfigError>(HasSubstr("did you mean")));
}

TEST(AttentionEngine, refuses_a_layout_with_an_empty_row) {
  // Example F of radial.md section 15.
  const TokenGrid grid{.frames = 8, .rows = 1, .cols = 7};
  AttentionEngine engine(
      rules({"radial:mode=parity,decay_factor=1,sink_frames=0,block_size=8,decimation=8,"
             "dense_steps=0,dense_layers=0"}));
  AttentionInput input;
  input.q = input.k = input.v = at::zeros({1, 1, grid.tokens(), 8});
  EXPECT_THAT([&] { engine(site_at(0, 1, Branch::kCond, grid), input); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("radial"), HasSubstr("row 1"))));
}

TEST(AttentionEngine, every_kernel_of_this_machine_gives_the_same_sparse_output) {
  const AttentionInput input = random_input(13);
  at::Tensor expected;
  for (const std::string& name : backend_names()) {
    if (!name.starts_with("block_attention")) continue;
    EngineOptions options =
        rules({"psa:block_size=32,query_block=32,rule=quota,ends=.2/.4/.6/.8,cap=off,dense_steps=0"});
    options.backend = name;
    AttentionEngine engine(std::move(options));
    at::Tensor out;
    try {
      out = engine(site_at(0), input);
    } catch (const UnsupportedError&) {
      continue;  // another instruction set
    }
    if (!expected.defined()) expected = out;
    EXPECT_LT(relative_l2(out, expected), 1e-5) << name;
  }
  ASSERT_TRUE(expected.defined());
}

}  // namespace
}  // namespace strobe::attention
