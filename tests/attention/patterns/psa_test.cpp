#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attention/kernel_scorer.h"
#include "attention/patterns/psa_importance.h"
#include "attention/patterns/psa_levels.h"
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

const std::vector<float> kExample = {.02F, .30F, .05F, .20F, .01F, .12F, .08F, .06F,
                                     .04F, .03F, .03F, .02F, .01F, .01F, .01F, .01F};

std::vector<int> levels(const std::vector<float>& importance, const PyramidLevels& rule) {
  std::vector<uint8_t> factors(importance.size());
  assign_levels(importance.data(), static_cast<int64_t>(importance.size()), rule, factors.data());
  return {factors.begin(), factors.end()};
}

// psa.md section 11.
TEST(PsaLevels, are_those_of_the_worked_example) {
  PyramidLevels rule{.ends = {.4, .5, .6, .8}};
  EXPECT_THAT(levels(kExample, rule), ElementsAre(0, 1, 8, 1, 0, 2, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0));
  for (const int64_t block : {128, 64}) {
    rule.multiples = parity_multiples(block);
    EXPECT_THAT(levels(kExample, rule), ElementsAre(0, 1, 8, 1, 0, 2, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0)) << block;
  }
  rule.multiples = parity_multiples(32);
  EXPECT_THAT(levels(kExample, rule), ElementsAre(8, 1, 8, 1, 8, 2, 2, 8, 8, 8, 8, 8, 0, 0, 0, 0));
  rule = {.is_quota = true, .ends = {.10, .15, .15, .35}, .multiples = parity_multiples(128)};
  EXPECT_THAT(levels(kExample, rule), ElementsAre(0, 1, 8, 2, 0, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0));
}

TEST(PsaLevels, of_the_quota_are_shares_of_the_blocks_rounded_down) {
  std::vector<float> importance(507);
  for (size_t i = 0; i < importance.size(); ++i) importance[i] = static_cast<float>(i * 37 % 507);
  PyramidLevels rule{.is_quota = true, .ends = {.10, .15, .15, .35}};
  EXPECT_EQ(std::ranges::count(levels(importance, rule), 8), 101);
  rule.multiples = parity_multiples(128);
  const auto factors = levels(importance, rule);
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 1), 50);
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 2), 26);
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 4), 0);
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 8), 102);
}

TEST(PsaLevels, never_leave_a_row_empty) {
  EXPECT_THAT(levels({.9F, .05F, .03F, .02F}, {.ends = {.4, .5, .6, .8}}), ElementsAre(1, 0, 0, 0));
  EXPECT_THAT(levels({.1F, .2F}, {.is_quota = true, .ends = {.10, .15, .15, .35}}), ElementsAre(0, 1));
  EXPECT_THAT(levels({.1F}, {.is_quota = true, .ends = {0, 0, 0, 0}}), ElementsAre(1));
}

TEST(PsaLevels, drop_what_lies_behind_the_last_end_rather_than_pool_it) {
  const auto factors = levels(std::vector<float>(100, 1), {.ends = {.3, .5, .7, .7}});
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 8), 0);
  EXPECT_EQ(std::count(factors.begin(), factors.end(), 0), 29);
}

TEST(PsaLevels, get_finer_with_larger_ends_and_coarser_with_rank) {
  const at::Tensor random = random_tokens(1, {50, 40}).exp().contiguous();
  for (int64_t row = 0; row < 50; ++row) {
    const float* first = random.const_data_ptr<float>() + row * 40;
    const std::vector<float> importance(first, first + 40);
    const auto factors = levels(importance, {.ends = {.3, .4, .5, .6}});
    for (const PyramidLevels& larger :
         {PyramidLevels{.ends = {.35, .4, .5, .6}}, PyramidLevels{.ends = {.3, .4, .5, .9}},
          PyramidLevels{.ends = {.3, .45, .5, .6}}}) {
      const auto finer = levels(importance, larger);
      for (size_t j = 0; j < 40; ++j) EXPECT_TRUE(factors[j] == 0 || (finer[j] != 0 && finer[j] <= factors[j]));
    }
    for (size_t i = 0; i < 40; ++i) {
      for (size_t j = 0; j < 40; ++j) {
        if (importance[i] <= importance[j] || factors[j] == 0) continue;
        EXPECT_TRUE(factors[i] != 0 && factors[i] <= factors[j]);
      }
    }
    EXPECT_GE(std::count(factors.begin(), factors.end(), 1), 3);  // 6 % of 40, and one
  }
}

TEST(PsaLevels, order_equal_blocks_by_index) {
  EXPECT_THAT(levels(std::vector<float>(8, 1), {.is_quota = true, .ends = {.25, .5, .5, .5}}),
              ElementsAre(1, 1, 2, 2, 0, 0, 0, 0));
}

// psa.md section 11.
TEST(PsaCaps, are_the_largest_level_that_passes) {
  const at::Tensor k =
      at::tensor({1., 0., 1., .1, 1., .3, 1., .5, .6, 1., .5, 1., .2, 1., 0., 1.}).view({1, 1, 8, 2}).to(at::kFloat);
  EXPECT_EQ(similarity_caps(k, nullptr, 8, {.7, .65, .6}).item<int>(), 4);
  EXPECT_EQ(similarity_caps(k, nullptr, 8, {.98946, .876, .6}).item<int>(), 2);
  EXPECT_EQ(similarity_caps(k, nullptr, 8, {.98948, .87595, .6}).item<int>(), 4);  // 4 passes where 2 does not
  EXPECT_EQ(similarity_caps(k, nullptr, 8, {.99, .876, 0}).item<int>(), 1);        // equality does not pass
  EXPECT_EQ(similarity_caps(k, nullptr, 8, {-1, -1, -1}).item<int>(), 8);
}

TEST(PsaImportance, is_that_of_the_worked_example) {
  const at::Tensor q = at::tensor({2., 0., 0., 2.}).view({1, 1, 2, 2}).to(at::kFloat);
  const at::Tensor k = at::tensor({1., 0., .9, .1, 0., 1., .1, .2, .5, .5, .4, .5}).view({1, 1, 6, 2}).to(at::kFloat);
  ImportanceInput input{.q = q,
                        .k = k,
                        .key_bias = {},
                        .q_offsets = at::arange(2, at::kLong).view({1, 2}),
                        .k_offsets = at::arange(2, at::kLong).view({1, 2}),
                        .query_block = 2,
                        .key_block = 2};
  const auto shares = [&] {
    const at::Tensor s = block_importance(input, TorchScorer());
    return s / s.sum();
  };
  EXPECT_TRUE(at::allclose(shares().flatten(), at::tensor({.4011F, .4011F, .1978F}), 0, 6e-5));
  input.is_softmax = true;
  EXPECT_TRUE(at::allclose(shares().flatten(), at::tensor({.3641F, .4259F, .2100F}), 0, 6e-5));
}

TEST(PsaImportance, of_the_kernels_is_that_of_the_products) {
  const int64_t tokens = 333;
  const at::Tensor q = random_tokens(2, {1, 2, tokens, 40}), k = random_tokens(3, {1, 2, tokens, 40});
  at::Tensor bias = random_tokens(4, {1, tokens});
  bias.narrow(1, 60, 70).fill_(-INFINITY);
  ImportanceInput input{.q = q,
                        .k = k,
                        .key_bias = bias,
                        .q_offsets = random_offsets({.seed = 1}, 2, 64, 0),
                        .k_offsets = random_offsets({.seed = 1}, 2, 32, 1),
                        .query_block = 64,
                        .key_block = 32};
  for (const bool is_softmax : {false, true}) {
    input.is_softmax = is_softmax;
    const at::Tensor expected = block_importance(input, TorchScorer());
    EXPECT_TRUE(at::allclose(block_importance(input, *make_scorer()), expected, 0, 1e-5)) << is_softmax;
    EXPECT_EQ(expected.select(2, 2).abs().max().item<float>(), 0) << "keys 64 to 95 are hidden";
  }
}

class PsaLevelCase : public ::testing::TestWithParam<const char*> {};

TEST_P(PsaLevelCase, gives_the_levels_of_the_public_code) {
  const StoredCase stored(GetParam());
  const at::Tensor importance = stored("importance")[0].contiguous();
  PyramidLevels rule{.is_quota = stored.params().at("rule").as_string() == "topk"};
  const auto ends = stored.params().get_numbers("ends", {});
  std::copy(ends.begin(), ends.end(), rule.ends.begin());
  const int64_t blocks = importance.size(2), text = stored.params().get_integer("text_columns_forced", 0);
  for (const bool is_parity : {true, false}) {
    if (is_parity) rule.multiples = parity_multiples(stored.params().get_integer("block_k", 0));
    if (!is_parity) rule.multiples = {1, 1, 1, 1};
    at::Tensor found = at::empty(importance.sizes(), at::kByte);
    for (int64_t row = 0; row < importance.numel() / blocks; ++row) {
      assign_levels(importance.const_data_ptr<float>() + row * blocks, blocks, rule,
                    found.mutable_data_ptr<uint8_t>() + row * blocks);
    }
    if (text > 0) found.slice(2, blocks - text).fill_(1);
    EXPECT_TRUE(at::equal(found, stored(is_parity ? "level" : "level_align1"))) << is_parity;
  }
}

INSTANTIATE_TEST_SUITE_P(Stored, PsaLevelCase,
                         ::testing::Values("psa_A04_level_cumulative_b128_nk64", "psa_A05_level_cumulative_b64_nk64",
                                           "psa_A06_level_cumulative_b32_nk64", "psa_A07_level_quota_b128_nk64",
                                           "psa_A08_level_quota_b64_nk50", "psa_A09_level_quota_b32_nk77",
                                           "psa_A10_level_cumulative_b128_text226", "psa_A11_level_quota_b128_nk507",
                                           "psa_A12_level_cumulative_b128_nk591"));

struct FullCase {
  const char* name;
  const char* options;
};
void PrintTo(const FullCase& c, std::ostream* out) { *out << c.name; }

class PsaFullCase : public ::testing::TestWithParam<FullCase> {};

TEST_P(PsaFullCase, gives_importance_levels_and_output_of_the_public_code) {
  const StoredCase stored(GetParam().name);
  const at::Tensor q = stored("q"), k = stored("k");
  const at::Tensor q_offsets = stored("q_offsets"), k_offsets = stored("k_offsets");
  const at::Tensor importance = block_importance({.q = q,
                                                  .k = k,
                                                  .key_bias = {},
                                                  .q_offsets = q_offsets[0].to(at::kLong),
                                                  .k_offsets = k_offsets[0].to(at::kLong),
                                                  .query_block = stored.params().get_integer("block_q", 0),
                                                  .key_block = stored.params().get_integer("block_k", 0)},
                                                 TorchScorer());
  EXPECT_LE((importance / importance.sum(2, true) - stored("importance")[0]).abs().max().item<double>(), 1e-5);
  for (const bool is_parity : {true, false}) {
    MethodCase psa(std::string("psa:sample=given,") + GetParam().options + (is_parity ? ",parity_rounding=1" : ""));
    psa.state.tensors = {{"q_offsets", q_offsets}, {"k_offsets", k_offsets}};
    const AttentionPlan plan = psa.plan(q, k);
    EXPECT_TRUE(at::equal(levels_of(*plan.layout), stored(is_parity ? "level" : "level_align1"))) << is_parity;
    plan.layout->validate();
  }
}

INSTANTIATE_TEST_SUITE_P(Stored, PsaFullCase,
                         ::testing::Values(FullCase{"psa_A01_full_cumulative_b64",
                                                    "ends=.3/.55/.75/.95,block_size=64,query_block=64,cap=off"},
                                           FullCase{"psa_A02_full_cumulative_b64_cap_ragged",
                                                    "ends=.3/.55/.75/.95,block_size=64,query_block=64,cap=.70/.65/.60"},
                                           FullCase{
                                               "psa_A03_full_quota_b32",
                                               "rule=quota,ends=.1/.25/.4/1,block_size=32,query_block=64,cap=off"}));

TEST(Psa, attends_as_the_public_code_with_either_tail) {
  const StoredCase stored("psa_A02_full_cumulative_b64_cap_ragged");
  const std::string options = "ends=.3/.55/.75/.95,block_size=64,query_block=64,parity_rounding=1,sample=given";
  for (const std::string tail : {"exact", "replicate"}) {
    MethodCase psa("psa:" + options + ",tail=" + tail);
    psa.state.tensors = {{"q_offsets", stored("q_offsets")}, {"k_offsets", stored("k_offsets")}};
    const AttentionPlan plan = psa.plan(stored("q"), stored("k"));
    const auto found = attend(stored("q"), stored("k"), stored("v"), *plan.layout, plan.pooling);
    const at::Tensor expected = stored(tail == "exact" ? "out" : "out_replicate");
    EXPECT_TRUE(test::matches(found.out.to(at::kFloat), expected, {.relative_l2 = 1e-5})) << tail;
    if (tail == "replicate") continue;
    EXPECT_TRUE(test::matches(found.lse.to(at::kFloat), stored("lse"), {.relative_l2 = 1e-5}));
  }
}

// psa.md section 11.
TEST(Psa, pooled_attention_of_the_worked_example) {
  const at::Tensor q = at::tensor({1., .5}).view({1, 1, 1, 2});
  const at::Tensor k =
      at::tensor({1., 0., 1., .2, 0., 1., .2, 1., -1., 0., -1., .4, 0., -1., .1, -1.}).view({1, 1, 8, 2});
  const at::Tensor v = at::arange(8, at::kDouble).view({1, 1, 8, 1});
  const auto run = [&](int64_t tokens, int first, int second, const PoolingRule& rule) {
    BlockLayout layout(1, {0, 1}, BlockLayout::uniform_offsets(tokens, 4));
    layout.set(0, 0, 0, first);
    layout.set(0, 0, 1, second);
    const auto found = attend(q, k.narrow(2, 0, tokens), v.narrow(2, 0, tokens), layout, rule);
    return std::array<double, 2>{found.out.item<double>(), found.lse.item<double>()};
  };
  const PoolingRule exact, unbiased{.has_multiplicity_bias = false},
      copies{.replicates_tail = true, .replicated_size = 4};
  EXPECT_NEAR(run(8, 1, 1, exact)[0], 2.477659, 1e-6);
  EXPECT_NEAR(run(8, 1, 2, exact)[0], 2.470280, 1e-6);
  EXPECT_NEAR(run(8, 1, 2, unbiased)[0], 2.000477, 1e-6);
  EXPECT_NEAR(run(8, 2, 1, exact)[1], 2.279931, 1e-6);
  EXPECT_NEAR(run(8, 1, 4, exact)[1], 2.277394, 1e-6);
  EXPECT_NEAR(run(8, 4, 4, exact)[0], 2.528733, 1e-6);
  EXPECT_NEAR(run(8, 1, 0, exact)[0], 1.368244, 1e-6);
  EXPECT_NEAR(run(6, 1, 2, exact)[0], 1.766264, 1e-6);
  EXPECT_NEAR(run(6, 1, 2, copies)[0], 2.154412, 1e-6);
}

TEST(Psa, draws_by_seed_step_layer_branch_and_head_alone) {
  AttentionSite site{.layer = 3, .branches = {Branch::kCond}, .seed = 7, .step = 4};
  const at::Tensor drawn = random_offsets(site, 3, 128, 0);
  EXPECT_TRUE(at::equal(drawn, random_offsets(site, 3, 128, 0)));
  EXPECT_TRUE(at::equal(drawn.narrow(0, 0, 2), random_offsets(site, 2, 128, 0)));
  EXPECT_FALSE(at::equal(drawn[0], drawn[1]));
  EXPECT_FALSE(at::equal(drawn, random_offsets(site, 3, 128, 1)));
  for (int64_t h = 0; h < 3; ++h) {
    EXPECT_EQ(std::get<0>(at::_unique(drawn[h])).numel(), 32);
    EXPECT_TRUE(drawn[h].min().item<int64_t>() >= 0 && drawn[h].max().item<int64_t>() < 128);
  }
  for (const auto& change : std::vector<std::function<void(AttentionSite&)>>{
           [](auto& s) { s.step = 5; }, [](auto& s) { s.layer = 4; }, [](auto& s) { s.seed = 8; },
           [](auto& s) { s.branches = {Branch::kUncond}; }, [](auto& s) { s.evaluation = 1; }}) {
    AttentionSite other = site;
    change(other);
    EXPECT_FALSE(at::equal(drawn, random_offsets(other, 3, 128, 0)));
  }
  AttentionSite other = site;
  other.sample = 5;  // the place of a clip in a run changes nothing
  EXPECT_TRUE(at::equal(drawn, random_offsets(other, 3, 128, 0)));
}

TEST(Psa, draws_every_offset_about_equally_often) {
  at::Tensor counts = at::zeros({64}, at::kLong);
  for (int step = 0; step < 400; ++step) {
    counts += at::bincount(random_offsets({.step = step}, 4, 64, 0).flatten(), {}, 64);
  }
  EXPECT_GT(counts.min().item<int64_t>(), 320);  // 400 expected, sigma 17
  EXPECT_LT(counts.max().item<int64_t>(), 480);
}

TEST(Psa, plans_valid_layouts_for_any_length_and_the_same_twice) {
  for (const int64_t tokens : {1, 7, 127, 128, 129, 1000}) {
    MethodCase psa("psa:block_size=32,query_block=64");
    const at::Tensor q = random_tokens(2, {1, 2, tokens, 16}), k = random_tokens(3, {1, 2, tokens, 16});
    const AttentionPlan plan = psa.plan(q, k);
    plan.layout->validate();
    EXPECT_TRUE(*plan.layout == *psa.plan(q, k).layout);
    psa.plan(q.to(at::kBFloat16), k.to(at::kBFloat16)).layout->validate();
  }
}

TEST(Psa, keeps_everything_with_full_ends) {
  MethodCase psa("psa:ends=1/1/1/1,block_size=32,query_block=32");
  EXPECT_TRUE(psa.plan(random_tokens(2, {1, 2, 300, 16}), random_tokens(3, {1, 2, 300, 16})).layout->is_full());
}

TEST(Psa, refines_and_never_drops_by_the_cap) {
  const at::Tensor q = random_tokens(2, {1, 2, 512, 16}), k = random_tokens(3, {1, 2, 512, 16});
  const std::string options = "psa:block_size=32,query_block=32,sample=strided,cap=";
  const at::Tensor without = levels_of(*MethodCase(options + "off").plan(q, k).layout);
  const at::Tensor capped = levels_of(*MethodCase(options + ".02/.02/.02").plan(q, k).layout);
  const at::Tensor binary = levels_of(*MethodCase(options + "1/1/1").plan(q, k).layout);
  EXPECT_TRUE(at::equal(levels_of(*MethodCase(options + "-1/-1/-1").plan(q, k).layout), without));
  EXPECT_TRUE(at::equal(capped == 0, without == 0) && (capped <= without).all().item<bool>());
  EXPECT_FALSE(at::equal(capped, without) || at::equal(capped, binary));
  EXPECT_TRUE(at::equal(binary, (without != 0).to(at::kByte)));
}

TEST(Psa, reads_text_in_full_and_ignores_hidden_text) {
  for (const bool is_text_first : {false, true}) {
    MethodCase psa("psa:block_size=32,query_block=64,ends=.1/.2/.3/.4,reorder=none");
    psa.site.grid = {.frames = 2, .rows = 10, .cols = 15, .text_tokens = 50, .is_text_first = is_text_first};
    const at::Tensor q = random_tokens(2, {1, 2, 350, 16});
    at::Tensor k = random_tokens(3, {1, 2, 350, 16}), bias = at::zeros({1, 350});
    const int64_t hidden = is_text_first ? 40 : 340;
    bias.narrow(1, hidden, 10).fill_(-INFINITY);
    const at::Tensor levels = levels_of(*psa.plan(q, k, bias).layout);
    const int64_t col = is_text_first ? 0 : 9, row = is_text_first ? 0 : 4;  // text is 0..49 or 300..349
    EXPECT_TRUE((levels.narrow(2, col, 2) == 1).all().item<bool>());
    EXPECT_TRUE((levels.narrow(1, row, is_text_first ? 1 : 2) == 1).all().item<bool>());
    EXPECT_TRUE((levels == 0).any().item<bool>());
    k.narrow(2, hidden, 10).fill_(NAN);
    EXPECT_TRUE(at::equal(levels, levels_of(*psa.plan(q, k, bias).layout)));
  }
}

TEST(Psa, plans_along_a_curve_what_it_plans_for_tensors_in_that_order) {
  for (const std::string options : {"score=rowmax", "score=softmax,tail=replicate"}) {
    MethodCase psa("psa:block_size=32,query_block=64,ends=.1/.2/.3/.4,cap=.02/.02/.02," + options);
    psa.site.grid = {.frames = 3, .rows = 9, .cols = 10, .text_tokens = 40, .is_text_first = true};
    const PatternOrders orders = psa.rule.pattern->order(psa.site);
    const at::Tensor q = random_tokens(2, {1, 2, 310, 16}), k = random_tokens(3, {1, 2, 310, 16});
    at::Tensor bias = at::zeros({1, 310});
    bias.narrow(1, 35, 5).fill_(-INFINITY);
    const at::Tensor moved_q = in_order(q, orders.q), moved_k = in_order(k, orders.k);
    const at::Tensor moved_bias = in_order(bias.unsqueeze(0), orders.k).squeeze(0);
    const at::Tensor expected = levels_of(*psa.plan(moved_q, moved_k, moved_bias).layout);
    PatternCall call = psa.call(q, k, bias);
    call.orders = orders;
    EXPECT_TRUE(at::equal(levels_of(*psa.rule.pattern->plan(call).layout), expected)) << options;
    EXPECT_FALSE(at::equal(levels_of(*psa.plan(q, k, bias).layout), expected)) << options;
  }
}

TEST(Psa, puts_the_text_last_along_its_curve) {
  MethodCase psa("psa:block_size=32");
  psa.site.grid = {.frames = 2, .rows = 6, .cols = 10, .text_tokens = 40, .is_text_first = true};
  const auto order = psa.rule.pattern->order(psa.site);
  EXPECT_EQ(order.q->raster()[120], 0);
  const at::Tensor x = random_tokens(2, {1, 1, 160, 16});
  const at::Tensor levels = levels_of(*psa.plan(x, x).layout);
  EXPECT_TRUE((levels.narrow(2, 3, 2) == 1).all().item<bool>());
  EXPECT_EQ(MethodCase("psa:reorder=none").rule.pattern->order(psa.site).q, nullptr);
}

TEST(Psa, sparse_lse_is_at_most_dense_lse_and_outputs_lie_among_the_values) {
  const at::Tensor q = random_tokens(2, {1, 2, 200, 16}) * 2, k = random_tokens(3, {1, 2, 200, 16}),
                   v = random_tokens(4, {1, 2, 200, 16});
  const AttentionPlan plan = MethodCase("psa:block_size=32,query_block=32,cap=off").plan(q, k);
  EXPECT_TRUE(plan.layout->has_pooled_pairs());
  const auto sparse = attend(q, k, v, *plan.layout, plan.pooling);
  const auto dense = attend(q, k, v, BlockLayout::full({0, 200}, {0, 200}));
  EXPECT_TRUE((sparse.lse <= dense.lse + 1e-9).all().item<bool>());
  EXPECT_TRUE((sparse.out <= v.to(at::kDouble).amax({2}, true) + 1e-9).all().item<bool>());
  EXPECT_TRUE((sparse.out >= v.to(at::kDouble).amin({2}, true) - 1e-9).all().item<bool>());
}

TEST(Psa, refuses_what_does_not_fit) {
  const auto refuses = [](const std::string& options, const std::string& message) {
    EXPECT_THAT([&] { make_rule(ConfigNode::string("psa:" + options)); },
                ThrowsMessage<ConfigError>(HasSubstr(message)))
        << options;
  };
  refuses("ends=.5/.4/.7/.8", "psa: ends: expected numbers that do not fall");
  refuses("ends=.5/.6/.7", "psa: ends: expected 4 numbers");
  refuses("rule=cumulativ", "did you mean 'cumulative'?");
  refuses("cap=.7/.6", "psa: cap: expected 3 numbers");
  refuses("block_size=36", "psa: block_size: expected a multiple of 8, found 36");
  refuses("query_block=6", "psa: query_block: expected a multiple of 4, found 6");
  refuses("block_size=16,parity_rounding=1", "psa: parity_rounding: needs a block_size of at least 32");
  refuses("preset=wan_14", "did you mean 'wan_14b'?");
  refuses("end=1", "did you mean 'ends'?");
  MethodCase psa("psa:sample=given");
  const at::Tensor x = random_tokens(2, {1, 1, 300, 16});
  EXPECT_THAT([&] { psa.plan(x, x); }, ThrowsMessage<ConfigError>(HasSubstr("no tensor q_offsets [H, 32] was given")));
  psa.state.tensors = {{"q_offsets", at::zeros({1, 32}, at::kInt)}, {"k_offsets", at::full({1, 32}, 128, at::kInt)}};
  EXPECT_THAT([&] { psa.plan(x, x); }, ThrowsMessage<ConfigError>(HasSubstr("expected offsets in [0, 128)")));
}

TEST(Psa, every_preset_makes_a_method) {
  for (const PatternPreset& preset : pattern_info("psa").presets) {
    EXPECT_NO_THROW(make_rule(ConfigNode::string("psa:preset=" + preset.name))) << preset.name;
  }
  EXPECT_EQ(make_rule(ConfigNode::string("psa:preset=wan22_a14b")).dense_steps_of(40), 12);
  EXPECT_EQ(make_rule(ConfigNode::string("psa:preset=wan_1_3b_4step")).dense_steps_of(4), 0);
}

}  // namespace
}  // namespace strobe::attention
