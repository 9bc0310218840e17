#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/attention/patterns/method_case.h"

namespace strobe::attention {
namespace {

using test_support::attend;
using test_support::levels_of;
using test_support::MethodCase;
using test_support::random_tokens;
using test_support::StoredCase;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

MethodCase always(const std::string& options) {
  MethodCase sparsed("sparsed:" + options);
  sparsed.site.plans_always = true;
  return sparsed;
}

std::vector<int> columns(const at::Tensor& row) {
  const at::Tensor indices = at::nonzero(row).flatten().to(at::kInt).contiguous();
  return {indices.const_data_ptr<int>(), indices.const_data_ptr<int>() + indices.numel()};
}

// sparsed.md section 9; the scale of 3 is in the queries.
TEST(Sparsed, keeps_the_blocks_of_the_worked_example) {
  const at::Tensor q = at::tensor({3.6, .3, .6, 3.0}).view({1, 1, 2, 2}).to(at::kFloat);
  const at::Tensor k =
      at::tensor({1., 0., .8, .2, 0., 1., .1, .9, .5, .5, .4, .6, -1., 0., -.5, -.5, .3, .1, .2, .2, -.2, .6, 0., .5})
          .view({1, 1, 12, 2})
          .to(at::kFloat);
  const at::Tensor queries = at::cat({q, q, q, q, q, q}, 2);  // as many as keys
  const auto row = [&](const std::string& options) {
    return columns(levels_of(*always("block_size=2," + options).plan(queries, k).layout)[0][0]);
  };
  EXPECT_THAT(row("keep=.3,groups=0/8"), ElementsAre(0, 1, 5));
  EXPECT_THAT(row("keep=.3,groups=0/8,renorm_groups=1"), ElementsAre(0, 1, 4));
  EXPECT_THAT(row("keep=.3"), ElementsAre(0, 1));
  EXPECT_THAT(row("keep=.5,groups=0/8"), ElementsAre(0, 1, 2, 4, 5));
  EXPECT_THAT(row("keep=.5,groups=0/8,renorm_groups=1"), ElementsAre(0, 1, 2, 4, 5));
  EXPECT_THAT(row("keep=.5"), ElementsAre(0, 1, 2, 5));
  EXPECT_THAT(row("rule=mass,theta=.5"), ElementsAre(0, 1));  // .6644 + .4916 of 2
  EXPECT_THAT(row("rule=mass,theta=.8"), ElementsAre(0, 1, 2, 5));
  EXPECT_THAT(row("rule=mass,theta=.8,groups=0/8"), ElementsAre(0, 1, 2, 4, 5));
}

TEST(Sparsed, keeps_the_counts_of_the_specification) {
  const auto count = [](int64_t blocks, const std::string& keep) {
    const at::Tensor x = random_tokens(1, {1, 1, blocks, 4});
    MethodCase sparsed = always("block_size=1,query_block=512,keep=" + keep);
    return levels_of(*sparsed.plan(x, x).layout)[0][0].sum().item<int64_t>();
  };
  EXPECT_EQ(count(1, ".3"), 1);
  EXPECT_EQ(count(6, ".3"), 2);
  EXPECT_EQ(count(10, ".3"), 4);
  EXPECT_EQ(count(128, ".3"), 39);
  EXPECT_EQ(count(512, ".3"), 154);
  EXPECT_EQ(count(512, ".5"), 257);
  EXPECT_EQ(count(512, "1"), 512);
  EXPECT_EQ(count(512, "0"), 1);
}

struct StoredBuild {
  const char* name;
  const char* options;
};
void PrintTo(const StoredBuild& c, std::ostream* out) { *out << c.name; }

class SparsedCase : public ::testing::TestWithParam<StoredBuild> {};

TEST_P(SparsedCase, keeps_the_blocks_of_the_public_code_and_of_the_specification) {
  const StoredCase stored(GetParam().name);
  const std::string options = std::string("block_size=32,") + GetParam().options;
  EXPECT_TRUE(at::equal(levels_of(*always(options + ",renorm_groups=1").plan(stored("q"), stored("k")).layout),
                        stored("level")));
  EXPECT_TRUE(at::equal(levels_of(*always(options).plan(stored("q"), stored("k")).layout), stored("level_spec")));
}

INSTANTIATE_TEST_SUITE_P(
    Stored, SparsedCase,
    ::testing::Values(StoredBuild{"sparsed_A01_one_group", "keep=.3"},
                      StoredBuild{"sparsed_A02_two_groups", "keep=.3,groups=0/288"},
                      StoredBuild{"sparsed_A03_two_groups_straddle_ragged", "keep=.5,groups=0/333"},
                      StoredBuild{"sparsed_A04_llada_scale", "keep=.3,groups=0/192,build_scale=heads"}));

TEST(Sparsed, attends_as_the_public_code) {
  const StoredCase stored("sparsed_A02_two_groups");
  for (const bool is_parity : {true, false}) {
    MethodCase sparsed = always(std::string("block_size=32,groups=0/288,renorm_groups=") + (is_parity ? "1" : "0"));
    const auto found = attend(stored("q"), stored("k"), stored("v"), *sparsed.plan(stored("q"), stored("k")).layout);
    EXPECT_TRUE(test::matches(found.out.to(at::kFloat), stored(is_parity ? "out" : "out_spec"), {.relative_l2 = 1e-5}));
    if (!is_parity) continue;
    EXPECT_TRUE(test::matches(found.lse.to(at::kFloat), stored("lse"), {.relative_l2 = 1e-5}));
  }
}

struct Phases {
  int dense = 0, build_step = -1, builds = 0, sparse = 0;
};

Phases run_steps(MethodCase& sparsed, int steps) {
  sparsed.site.steps = steps;
  Phases run;
  for (int step = 0; step < steps; ++step) {
    sparsed.site.step = step;
    const at::Tensor q = random_tokens(100 + static_cast<uint64_t>(step), {1, 2, 64, 8}),
                     k = random_tokens(1, {1, 2, 64, 8});
    const AttentionPlan plan = sparsed.plan(q, k);
    EXPECT_EQ(plan.note.empty(), plan.layout != nullptr);
    ++(plan.layout ? run.sparse : run.dense);
    if (!plan.wants_lse) continue;
    sparsed.rule.pattern->observe(sparsed.call(q, k, {}), sparsed.scorer.row_lse({.q = q, .k = k}));
    run.build_step = step;
    ++run.builds;
  }
  return run;
}

TEST(Sparsed, builds_once_in_the_last_dense_step) {
  for (const auto& [steps, dense] :
       std::map<int, int>{{50, 10}, {40, 8}, {30, 6}, {128, 26}, {1024, 205}, {8, 2}, {4, 1}}) {
    MethodCase sparsed("sparsed:block_size=8,skip=.2");
    const Phases run = run_steps(sparsed, steps);
    EXPECT_EQ(run.dense, dense) << steps;
    EXPECT_EQ(run.build_step, dense - 1) << steps;
    EXPECT_EQ(run.builds, 1) << steps;
  }
  MethodCase no_skip("sparsed:block_size=8,skip=0");
  EXPECT_EQ(run_steps(no_skip, 10).dense, 1);
  MethodCase inactive("sparsed:block_size=8,skip=1");
  const Phases run = run_steps(inactive, 10);
  EXPECT_EQ(run.dense, 10);
  EXPECT_EQ(run.builds, 0);
}

TEST(Sparsed, builds_where_the_public_code_does_if_asked_to) {
  const ConfigNode stored = weights::load_json(test::golden_path("patterns/sparsed_A_schedule.json"));
  for (const ConfigNode& row : stored.at("public_schedule").as_list()) {
    MethodCase sparsed(fmt::format("sparsed:block_size=8,parity_code_schedule=1,skip={}", row.at("skip").as_number()));
    const Phases run = run_steps(sparsed, static_cast<int>(row.at("T").as_integer()));
    EXPECT_EQ(run.dense, row.at("dense_steps").as_integer());
    EXPECT_EQ(run.build_step, row.at("pattern_index").as_integer());
  }
}

TEST(Sparsed, stays_frozen_but_for_the_steps_that_rebuild) {
  MethodCase sparsed("sparsed:block_size=8,rebuild_steps=20/30");
  const Phases run = run_steps(sparsed, 50);
  EXPECT_EQ(run.dense, 12);
  EXPECT_EQ(run.builds, 3);
  EXPECT_EQ(run.build_step, 30);
  sparsed.site.step = 30;  // another evaluation of that step: dense, and nothing is built
  const at::Tensor x = random_tokens(7, {1, 2, 64, 8});
  const AttentionPlan again = sparsed.plan(x, x);
  EXPECT_TRUE(!again.layout && !again.wants_lse);
  sparsed.site.step = 49;
  const LayoutPtr layout = sparsed.plan(x, x).layout;
  EXPECT_EQ(layout, sparsed.plan(2 * x, -x).layout);
}

TEST(Sparsed, builds_at_the_next_step_where_the_state_is_missing) {
  MethodCase sparsed("sparsed:block_size=8");
  sparsed.site.step = 33;
  const at::Tensor x = random_tokens(7, {1, 2, 64, 8});
  AttentionPlan plan = sparsed.plan(x, x);
  EXPECT_TRUE(plan.wants_lse && !plan.layout);
  sparsed.search(x, x);
  sparsed.site.step = 34;
  EXPECT_TRUE(sparsed.plan(x, x).layout);
  sparsed.site.grid = {.frames = 1, .rows = 1, .cols = 80};  // a longer clip
  plan = sparsed.plan(random_tokens(7, {1, 2, 80, 8}), random_tokens(8, {1, 2, 80, 8}));
  EXPECT_TRUE(plan.wants_lse && !plan.layout);
}

TEST(Sparsed, builds_the_same_from_its_own_lse_as_from_a_dense_calls) {
  const at::Tensor q = random_tokens(1, {1, 2, 100, 8}), k = random_tokens(2, {1, 2, 100, 8});
  MethodCase observed("sparsed:block_size=8");
  observed.site.step = 9;
  MethodCase planned = always("block_size=8");
  const LayoutPtr layout = planned.plan(q, k).layout;
  EXPECT_TRUE(*observed.search(q, k) == *layout);
  EXPECT_EQ(planned.plan(-q, k).layout, layout);
  EXPECT_LE(planned.state.bytes(), planned.rule.pattern->state_bytes(planned.site.grid, 2));
}

TEST(Sparsed, a_bias_on_one_group_leaves_the_choice_in_the_others) {
  const at::Tensor q = random_tokens(1, {1, 2, 96, 8}), k = random_tokens(2, {1, 2, 96, 8}), bias = at::zeros({1, 96});
  const std::string blocks = "block_size=8,query_block=1";
  const auto run = [&](const std::string& options) {
    MethodCase sparsed = always(blocks + options);
    return levels_of(*sparsed.plan(q, k, bias).layout);
  };
  const at::Tensor isolated = run(",groups=0/64"), together = run("");
  bias.narrow(1, 64, 32).fill_(1.5);
  EXPECT_TRUE(at::equal(run(",groups=0/64"), isolated));
  EXPECT_FALSE(at::equal(run(""), together));
  EXPECT_TRUE((isolated.narrow(2, 0, 8).sum({2}) == 3).all().item<bool>());
  EXPECT_TRUE((isolated.narrow(2, 8, 4).sum({2}) == 2).all().item<bool>());
}

TEST(Sparsed, keeps_text_and_never_blocks_of_hidden_keys) {
  for (const bool is_text_first : {false, true}) {
    MethodCase sparsed = always("block_size=8,keep=0");
    sparsed.site.grid = {.frames = 2, .rows = 5, .cols = 10, .text_tokens = 24, .is_text_first = is_text_first};
    const at::Tensor q = random_tokens(1, {1, 2, 124, 8}), k = random_tokens(2, {1, 2, 124, 8}),
                     bias = at::zeros({1, 124});
    // Text is 0..23 or 100..123; of its blocks the second or the last but one is hidden.
    const int64_t hidden_block = is_text_first ? 1 : 14, first = is_text_first ? 0 : 12, count = is_text_first ? 3 : 4;
    bias.narrow(1, 8 * hidden_block, 8).fill_(-INFINITY);
    const LayoutPtr layout = sparsed.plan(q, k, bias).layout;
    layout->validate();
    const at::Tensor levels = levels_of(*layout);
    EXPECT_TRUE((levels.select(2, hidden_block) == 0).all().item<bool>());
    EXPECT_TRUE((levels.narrow(1, first, count).sum({2}) == 15).all().item<bool>());
    EXPECT_TRUE((levels.narrow(2, first, count).sum({2}) == count - 1).all().item<bool>());
    const at::Tensor video_rows = levels.narrow(1, is_text_first ? 3 : 0, 12);
    EXPECT_TRUE((video_rows.sum({2}) == 1 + count - 1).all().item<bool>());
    k.narrow(2, 8 * hidden_block, 8).fill_(NAN);
    sparsed.state = {};
    EXPECT_TRUE(*sparsed.plan(q, k, bias).layout == *layout);
  }
}

TEST(Sparsed, keeps_everything_with_a_full_budget_and_any_length) {
  for (const int64_t tokens : {1, 5, 127, 128, 129, 700}) {
    const at::Tensor q = random_tokens(1, {1, 2, tokens, 8}), k = random_tokens(2, {1, 2, tokens, 8});
    EXPECT_TRUE(always("keep=1,block_size=64").plan(q, k).layout->is_full());
    EXPECT_TRUE(always("rule=mass,theta=1").plan(q, k).layout->is_full());
    always("block_size=64,query_block=128").plan(q, k).layout->validate();
  }
}

TEST(Sparsed, refuses_what_does_not_fit) {
  const auto refuses = [](const std::string& options, const std::string& message) {
    EXPECT_THAT([&] { make_rule(ConfigNode::string("sparsed:" + options)); },
                ThrowsMessage<ConfigError>(HasSubstr(message)))
        << options;
  };
  refuses("groups=5/10", "sparsed: groups: expected the first to be 0");
  refuses("groups=0/10/10", "sparsed: groups: expected numbers that rise");
  refuses("renorm_groups=1,rule=mass", "sparsed: renorm_groups: goes with rule=ratio alone");
  refuses("skip=2", "sparsed: skip: expected a number in [0, 1], found '2'");
  refuses("keeps=.5", "did you mean 'keep'?");
  const at::Tensor x = random_tokens(7, {1, 2, 64, 8});
  EXPECT_THAT([&] { always("groups=0/64").plan(x, x); },
              ThrowsMessage<ConfigError>(HasSubstr("sparsed: groups: token 64 is beyond the 64 tokens")));
  for (const PatternPreset& preset : pattern_info("sparsed").presets) {
    EXPECT_NO_THROW(make_rule(ConfigNode::string("sparsed:preset=" + preset.name))) << preset.name;
  }
}

}  // namespace
}  // namespace strobe::attention
