#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attention/patterns/adaspa_selection.h"
#include "core/error.h"
#include "tests/attention/patterns/method_case.h"

namespace strobe::attention {
namespace {

using test_support::attend;
using test_support::levels_of;
using test_support::MethodCase;
using test_support::random_tokens;
using test_support::StoredCase;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// adaspa.md section 11.
const at::Tensor kExampleQ =
    at::tensor({2., 0., 2., 1., 0., 2., 1., 2., -2., 0., -2., 1., 0., -2., 1., -2.}).view({1, 1, 8, 2}).to(at::kFloat);
const at::Tensor kExampleK = at::tensor({1., 0., 1., 1., 0., 1., -1., 1., -1., 0., -1., -1., 0., -1., 1., -1.})
                                 .view({1, 1, 8, 2})
                                 .to(at::kFloat);

MassBlocks example_blocks() {
  const TorchScorer scorer;
  const ScoreInput input{.q = kExampleQ, .k = kExampleK};
  const auto offsets = BlockLayout::uniform_offsets(8, 2);
  return {.mass = scorer.block_mass(input, scorer.row_lse(input), offsets, offsets, false).mass[0].contiguous(),
          .video_rows = {0, 4},
          .video_cols = {0, 4}};
}

TEST(AdaspaSelection, has_masses_and_recalls_of_the_worked_example) {
  const MassBlocks blocks = example_blocks();
  const at::Tensor expected = at::tensor({1.2433F, .2237F, .0526F, .4805F, .9199F, .8898F, .1168F, .0735F, .0735F,
                                          .9199F, .8898F, .1168F, .2237F, .0526F, .4805F, 1.2433F});
  EXPECT_TRUE(at::allclose(blocks.mass.flatten(), expected, 0, 6e-5));
  EXPECT_TRUE(at::allclose(blocks.mass.sum(2), at::full({1, 4}, 2.0F), 1e-6));
  EXPECT_NEAR(head_recalls(blocks, 1)[0], .5408, 5e-5);
  EXPECT_NEAR(head_recalls(blocks, 2)[0], .8834, 5e-5);
  EXPECT_NEAR(head_recalls(blocks, 3)[0], .9685, 5e-5);
}

TEST(Adaspa, keeps_the_blocks_of_the_worked_example_with_a_fresh_and_a_stale_lse) {
  MethodCase adaspa("adaspa:sparsity=.5,block_size=2,search_steps=0/1/2");
  const at::Tensor expected =
      at::tensor({1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1}).view({1, 4, 4}).to(at::kByte);
  EXPECT_TRUE(at::equal(levels_of(*adaspa.search(kExampleQ, kExampleK)), expected));
  const at::Tensor q = 1.1 * kExampleQ + at::tensor({.05F, -.05F}), k = 1.05 * kExampleK + at::tensor({0.F, .1F});
  adaspa.site.step = 1;
  EXPECT_TRUE(at::equal(levels_of(*adaspa.plan(q, k).layout), expected));
}

TEST(AdaspaSelection, keeps_the_counts_of_the_specification) {
  for (const auto& [blocks, counts] : std::map<int64_t, std::array<int64_t, 3>>{
           {1182, {355, 236, 118}}, {1861, {558, 372, 186}}, {512, {154, 102, 51}}, {4, {1, 1, 1}}, {1, {1, 1, 1}}}) {
    EXPECT_EQ(kept_of(blocks, .7), counts[0]) << blocks;
    EXPECT_EQ(kept_of(blocks, .8), counts[1]) << blocks;
    EXPECT_EQ(kept_of(blocks, .9), counts[2]) << blocks;
  }
  EXPECT_EQ(kept_of(10, 0.45), 6);  // halves up
  EXPECT_EQ(kept_of(10, 0), 10);
  EXPECT_EQ(kept_of(10, 1), 1);
}

TEST(AdaspaSelection, moves_the_budget_between_heads_and_keeps_the_mean) {
  const std::vector<double> recalls = {.97, .62, .85, .71, .91, .55, .79, .83};
  EXPECT_THAT(
      head_sparsities(recalls, {.sparsity = .8}),
      ElementsAre(::testing::DoubleNear(.9, 1e-12), ::testing::DoubleNear(.7, 1e-12), ::testing::DoubleNear(.9, 1e-12),
                  ::testing::DoubleNear(.7, 1e-12), ::testing::DoubleNear(.9, 1e-12), ::testing::DoubleNear(.7, 1e-12),
                  ::testing::DoubleNear(.7, 1e-12), ::testing::DoubleNear(.9, 1e-12)));
  for (const double s : {0., .1, .3, 1. / 3, .5, .8, 1.}) {
    for (const double threshold : {.5, .6, .8, .9, .99}) {
      double sum = 0;
      for (const double of_head : head_sparsities(recalls, {.sparsity = s, .recall = threshold})) {
        EXPECT_TRUE(of_head >= 0 && of_head <= 1);
        sum += of_head;
      }
      EXPECT_NEAR(sum / 8, s, 1e-12) << s << " " << threshold;
    }
  }
  EXPECT_THAT(head_sparsities({.99}, {}), ElementsAre(.8));
  EXPECT_THAT(head_sparsities({.1, .2, .3}, {}), Each(.8));
  // Equal recalls: the first heads give, the last ones get.
  EXPECT_LT(head_sparsities({.9, .9, .9}, {})[2], head_sparsities({.9, .9, .9}, {})[0]);
  EXPECT_DOUBLE_EQ(head_sparsities({.9, .9, .9}, {})[1], .8);
}

struct SearchCase {
  const char* name;
  const char* options;
};
void PrintTo(const SearchCase& c, std::ostream* out) { *out << c.name; }

class AdaspaCase : public ::testing::TestWithParam<SearchCase> {};

TEST_P(AdaspaCase, finds_the_blocks_of_both_searches) {
  const StoredCase stored(GetParam().name);
  MethodCase adaspa(std::string("adaspa:block_size=32,search_steps=10/30/40,") + GetParam().options);
  adaspa.site.grid = {.frames = 1,
                      .rows = 1,
                      .cols = stored.params().get_integer("video_tokens", 0),
                      .text_tokens = stored.params().get_integer("text_tokens", 0)};
  adaspa.site.step = 10;
  EXPECT_TRUE(at::equal(levels_of(*adaspa.search(stored("q"), stored("k"))), stored("level")));
  EXPECT_TRUE(test::matches(adaspa.state.tensors.at("lse")[0], stored("lse"), {.relative_l2 = 1e-5}));
  adaspa.site.step = 29;
  EXPECT_TRUE(at::equal(levels_of(*adaspa.plan(stored("q2"), stored("k2")).layout), stored("level")));
  adaspa.site.step = 30;
  const AttentionPlan plan = adaspa.plan(stored("q2"), stored("k2"));
  EXPECT_FALSE(plan.wants_lse);
  EXPECT_TRUE(at::equal(levels_of(*plan.layout), stored("level2")));
  EXPECT_TRUE(test::matches(adaspa.state.tensors.at("lse")[0], stored("lse2"), {.relative_l2 = 1e-5}));
  // The refreshed one is that of the tensors.
  const at::Tensor fresh = adaspa.scorer.row_lse({.q = stored("q2"), .k = stored("k2")});
  EXPECT_TRUE(test::matches(adaspa.state.tensors.at("lse"), fresh, {.relative_l2 = 1e-5}));
  EXPECT_LE(adaspa.state.bytes(), adaspa.rule.pattern->state_bytes(adaspa.site.grid, stored("q").size(1)));
}

INSTANTIATE_TEST_SUITE_P(Stored, AdaspaCase,
                         ::testing::Values(SearchCase{"adaspa_A01_no_text", "sparsity=.6,recall=.53"},
                                           SearchCase{"adaspa_A02_text_last", "sparsity=.7,recall=.6"},
                                           SearchCase{"adaspa_A03_ragged_many_high", "sparsity=.5,recall=.6"}));

TEST(Adaspa, attends_as_stored_after_a_search_with_the_stored_lse) {
  const StoredCase stored("adaspa_A01_no_text");
  MethodCase adaspa("adaspa:block_size=32,sparsity=.6,recall=.53");
  adaspa.site.plans_always = true;  // as `pattern run --call-steps 10,30`
  adaspa.site.step = 10;
  const AttentionPlan first = adaspa.plan(stored("q"), stored("k"));
  EXPECT_TRUE(first.wants_lse && !first.layout);
  adaspa.search(stored("q"), stored("k"));
  adaspa.site.step = 30;
  const auto found = attend(stored("q2"), stored("k2"), stored("v"), *adaspa.plan(stored("q2"), stored("k2")).layout);
  EXPECT_TRUE(test::matches(found.out.to(at::kFloat), stored("out2"), {.relative_l2 = 1e-5}));
}

// One layer's calls over a run, by kind.
struct Calls {
  int dense = 0, fused = 0, cached = 0, sparse = 0;
};

Calls run_steps(MethodCase& adaspa, const std::vector<int>& steps) {
  Calls calls;
  for (const int step : steps) {
    adaspa.site.step = step;
    const at::Tensor q = random_tokens(100 + static_cast<uint64_t>(step), {1, 2, 64, 8}),
                     k = random_tokens(1, {1, 2, 64, 8});
    const LayoutPtr before = adaspa.state.layout;
    const AttentionPlan plan = adaspa.plan(q, k);
    if (plan.wants_lse) {
      EXPECT_FALSE(plan.layout);
      EXPECT_FALSE(plan.note.empty());
      adaspa.rule.pattern->observe(adaspa.call(q, k, {}), adaspa.scorer.row_lse({.q = q, .k = k}));
      ++calls.fused;
    } else if (!plan.layout) {
      EXPECT_FALSE(plan.note.empty());
      ++calls.dense;
    } else {
      ++(plan.layout == before ? calls.sparse : calls.cached);
    }
  }
  return calls;
}

std::vector<int> steps_to(int end, const std::vector<int>& skipped = {}) {
  std::vector<int> steps;
  for (int step = 0; step < end; ++step) {
    if (std::find(skipped.begin(), skipped.end(), step) == skipped.end()) steps.push_back(step);
  }
  return steps;
}

TEST(Adaspa, searches_at_its_steps_and_is_dense_before) {
  MethodCase adaspa("adaspa:block_size=8");
  const Calls calls = run_steps(adaspa, steps_to(50));
  EXPECT_EQ(calls.dense, 10);
  EXPECT_EQ(calls.fused, 1);
  EXPECT_EQ(calls.cached, 1);
  EXPECT_EQ(calls.sparse, 38);
  EXPECT_EQ(adaspa.state.tensors.count("lse"), 0U);  // no later search needs it
}

TEST(Adaspa, scales_its_search_steps_with_the_run) {
  for (const auto& [steps, dense] : std::map<int, int>{{40, 8}, {30, 6}, {9, 2}, {8, 1}, {2, 1}, {1, 1}}) {
    MethodCase adaspa("adaspa:block_size=8");
    adaspa.site.steps = steps;
    const Calls calls = run_steps(adaspa, steps_to(steps));
    EXPECT_EQ(calls.dense, dense) << steps;
    EXPECT_EQ(calls.fused, steps > 1 ? 1 : 0) << steps;
    EXPECT_EQ(calls.cached, steps > 8 ? 1 : 0) << steps;
  }
  MethodCase adaspa("adaspa:block_size=8,search_steps=0/30");
  const Calls calls = run_steps(adaspa, steps_to(50));
  EXPECT_EQ(calls.dense, 0);
  EXPECT_EQ(calls.sparse, 48);
}

TEST(Adaspa, makes_up_for_a_skipped_search_and_serves_a_step_once) {
  MethodCase adaspa("adaspa:block_size=8");
  const Calls calls = run_steps(adaspa, steps_to(50, {10, 30, 31}));
  EXPECT_EQ(calls.fused, 1);
  EXPECT_EQ(calls.cached, 1);
  MethodCase twice("adaspa:block_size=8");
  const Calls pairs = run_steps(twice, {9, 9, 10, 10, 30, 30, 31});
  EXPECT_EQ(pairs.dense, 2);
  EXPECT_EQ(pairs.fused, 1);
  EXPECT_EQ(pairs.cached, 1);
  EXPECT_EQ(pairs.sparse, 3);
}

TEST(Adaspa, searches_again_without_a_state_or_with_one_of_other_tokens) {
  MethodCase adaspa("adaspa:block_size=8");  // a second expert, or a run taken up in the middle
  EXPECT_EQ(run_steps(adaspa, {35}).fused, 1);
  adaspa.site.grid = {.frames = 1, .rows = 1, .cols = 48};
  adaspa.site.step = 36;
  EXPECT_TRUE(adaspa.plan(random_tokens(1, {1, 2, 48, 8}), random_tokens(2, {1, 2, 48, 8})).wants_lse);
}

TEST(Adaspa, searches_at_the_first_call_where_a_pattern_is_always_planned) {
  MethodCase adaspa("adaspa:block_size=8");
  adaspa.site.plans_always = true;
  adaspa.site.steps = 0;
  const Calls calls = run_steps(adaspa, {0, 0, 10, 20, 30, 31});
  EXPECT_EQ(calls.fused, 1);
  EXPECT_EQ(calls.cached, 2);
  EXPECT_EQ(calls.sparse, 3);
}

TEST(Adaspa, gives_up_a_search_whose_masses_are_not_finite) {
  MethodCase adaspa("adaspa:block_size=8,search_steps=0/1/2");
  const at::Tensor q = random_tokens(1, {1, 2, 64, 8}), k = random_tokens(2, {1, 2, 64, 8});
  const at::Tensor bad = q.clone();
  bad[0][1][5].fill_(NAN);
  EXPECT_EQ(adaspa.search(bad, k), nullptr);
  EXPECT_EQ(adaspa.state.layout, nullptr);
  EXPECT_NE(adaspa.search(q, k), nullptr);
  adaspa.site.step = 1;
  const AttentionPlan plan = adaspa.plan(bad, k);
  EXPECT_EQ(plan.note, "block masses are not finite");
  EXPECT_TRUE(!plan.layout && !plan.wants_lse && adaspa.state.tensors.empty() && !adaspa.state.layout);
}

TEST(Adaspa, an_unchanged_lse_finds_the_same_blocks) {
  for (const bool refreshes : {false, true}) {
    MethodCase adaspa(fmt::format("adaspa:block_size=8,search_steps=0/1/2,refresh_lse={}", refreshes ? 1 : 0));
    const at::Tensor q = random_tokens(1, {1, 3, 90, 8}), k = random_tokens(2, {1, 3, 90, 8});
    const LayoutPtr first = adaspa.search(q, k);
    const at::Tensor lse = adaspa.state.tensors.at("lse").clone();
    adaspa.site.step = 1;
    EXPECT_TRUE(*adaspa.plan(q, k).layout == *first);
    EXPECT_TRUE(test::matches(adaspa.state.tensors.at("lse"), lse, {.relative_l2 = 1e-6}));
    adaspa.site.step = 2;
    adaspa.plan(2 * q, k);
    EXPECT_EQ(adaspa.state.tensors.count("lse"), 0U);
  }
}

TEST(Adaspa, keeps_all_or_one_at_the_ends_of_its_budget) {
  const at::Tensor q = random_tokens(1, {1, 2, 100, 8}), k = random_tokens(2, {1, 2, 100, 8});
  EXPECT_TRUE(MethodCase("adaspa:block_size=8,search_steps=0,sparsity=0").search(q, k)->is_full());
  EXPECT_TRUE(MethodCase("adaspa:block_size=8,search_steps=0,target=mass,theta=1").search(q, k)->is_full());
  const at::Tensor one = levels_of(*MethodCase("adaspa:block_size=8,search_steps=0,sparsity=1").search(q, k));
  EXPECT_TRUE((one.sum({2}) == 1).all().item<bool>());
}

TEST(Adaspa, by_mass_keeps_the_fewest_blocks_that_hold_theta) {
  const at::Tensor q = 3 * random_tokens(1, {1, 2, 100, 8}), k = random_tokens(2, {1, 2, 100, 8});
  const at::Tensor kept =
      levels_of(*MethodCase("adaspa:block_size=8,search_steps=0,target=mass,theta=.9").search(q, k)).to(at::kFloat);
  const TorchScorer scorer;
  const auto offsets = BlockLayout::uniform_offsets(100, 8);
  const at::Tensor mass =
      scorer.block_mass({.q = q, .k = k}, scorer.row_lse({.q = q, .k = k}), offsets, offsets, false).mass[0];
  const at::Tensor held = (mass * kept).sum({2}), wanted = .9 * mass.sum({2});
  EXPECT_TRUE((held >= wanted - 1e-5).all().item<bool>());
  const at::Tensor smallest = at::where(kept > 0, mass, at::full({}, 1e9F)).amin({2});
  EXPECT_TRUE((held - smallest < wanted + 1e-5).all().item<bool>());
}

TEST(Adaspa, keeps_text_and_ignores_hidden_text_on_either_end) {
  for (const bool is_text_first : {false, true}) {
    MethodCase adaspa("adaspa:block_size=8,search_steps=0,sparsity=.9");
    adaspa.site.grid = {.frames = 2, .rows = 5, .cols = 10, .text_tokens = 20, .is_text_first = is_text_first};
    const at::Tensor q = random_tokens(1, {1, 2, 120, 8}), k = random_tokens(2, {1, 2, 120, 8}),
                     bias = at::zeros({1, 120});
    const int64_t hidden = is_text_first ? 15 : 115, first = is_text_first ? 0 : 12;  // text is 0..19 or 100..119
    bias.narrow(1, hidden, 5).fill_(-INFINITY);
    const LayoutPtr layout = adaspa.search(q, k, bias);
    layout->validate();
    const at::Tensor levels = levels_of(*layout);
    EXPECT_TRUE((levels.narrow(1, first, 3) == 1).all().item<bool>());
    EXPECT_TRUE((levels.narrow(2, first, 3) == 1).all().item<bool>());
    const at::Tensor video = levels.narrow(1, is_text_first ? 3 : 0, 12).narrow(2, is_text_first ? 3 : 0, 12);
    EXPECT_TRUE((video.sum({2}) == 1).all().item<bool>());
    q.narrow(2, hidden, 5).fill_(NAN);
    k.narrow(2, hidden, 5).fill_(NAN);
    adaspa.state = {};
    EXPECT_TRUE(*adaspa.search(q, k, bias) == *layout);
  }
}

TEST(Adaspa, permuting_heads_permutes_layouts) {
  const at::Tensor q = random_tokens(1, {1, 4, 100, 8}) * at::tensor({1.F, 2.F, 3.F, 4.F}).view({1, 4, 1, 1});
  const at::Tensor k = random_tokens(2, {1, 4, 100, 8}), order = at::tensor({2, 0, 3, 1});
  const std::string options = "adaspa:block_size=8,search_steps=0,sparsity=.5,recall=.7";
  const at::Tensor levels = levels_of(*MethodCase(options).search(q, k));
  const at::Tensor permuted =
      levels_of(*MethodCase(options).search(q.index_select(1, order), k.index_select(1, order)));
  EXPECT_TRUE(at::equal(permuted, levels.index_select(0, order)));
  EXPECT_GT(std::get<0>(at::_unique(levels.sum({1, 2}))).numel(), 1);  // budgets differ
}

TEST(Adaspa, plans_valid_layouts_for_any_length) {
  for (const int64_t tokens : {1, 63, 64, 65, 200}) {
    for (const int64_t text : {int64_t{0}, tokens / 3}) {
      MethodCase adaspa("adaspa:search_steps=0,query_block=16");
      adaspa.site.grid = {.frames = 1, .rows = 1, .cols = tokens - text, .text_tokens = text};
      adaspa.search(random_tokens(1, {1, 1, tokens, 8}), random_tokens(2, {1, 1, tokens, 8}))->validate();
    }
  }
}

TEST(Adaspa, refuses_what_does_not_fit) {
  const auto refuses = [](const std::string& options, const std::string& message) {
    EXPECT_THAT([&] { make_rule(ConfigNode::string("adaspa:" + options)); },
                ThrowsMessage<ConfigError>(HasSubstr(message)))
        << options;
  };
  refuses("search_steps=30/10", "adaspa: search_steps: expected numbers that rise");
  refuses("search_steps=10/10", "expected numbers that rise");
  refuses("sparsity=1.5", "adaspa: sparsity: expected a number in [0, 1], found '1.5'");
  refuses("target=masse", "did you mean 'mass'?");
  refuses("density=.5", "'density'");
  for (const PatternPreset& preset : pattern_info("adaspa").presets) {
    EXPECT_NO_THROW(make_rule(ConfigNode::string("adaspa:preset=" + preset.name))) << preset.name;
  }
}

}  // namespace
}  // namespace strobe::attention
