#include "training/recorded_attention.h"

#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/compare.h"

namespace strobe::training {
namespace {

using attention::AttentionEngine;
using attention::AttentionEvent;
using attention::AttentionInput;
using attention::AttentionKind;
using attention::AttentionSite;
using attention::EngineOptions;
using attention::PoolingRule;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int64_t kHeads = 4, kWidth = 24;
constexpr TokenGrid kVideo{.frames = 5, .rows = 6, .cols = 7};
constexpr TokenGrid kTextLast{.frames = 5, .rows = 6, .cols = 7, .text_tokens = 11};
constexpr TokenGrid kTextFirst{.frames = 5, .rows = 6, .cols = 7, .text_tokens = 11, .is_text_first = true};

struct Case {
  std::string name;
  std::vector<std::string> rules;
  std::string backward;
  int calls = 1;  // gradients are those of the last one
  TokenGrid grid = kTextLast;
  int64_t key_heads = kHeads;
  int64_t hidden = 3;  // text keys of the second batch row
};

std::ostream& operator<<(std::ostream& stream, const Case& tested) { return stream << tested.name; }

EngineOptions options_of(const std::vector<std::string>& texts) {
  EngineOptions options;
  for (const std::string& text : texts) options.rules.push_back(attention::make_rule(ConfigNode::string(text)));
  return options;
}

AttentionSite site_of(const TokenGrid& grid, int step = 5) {
  return {.layer = 1,
          .layers = 3,
          .branches = {Branch::kCond, Branch::kUncond},
          .step = step,
          .steps = 20,
          .sigma = 0.5,
          .grid = grid};
}

AttentionInput input_of(const Case& tested, int seed) {
  at::manual_seed(static_cast<uint64_t>(seed));
  const int64_t tokens = tested.grid.tokens();
  const auto tensor = [&](int64_t heads) { return at::randn({2, tokens, heads, kWidth}).transpose(1, 2) * 1.2; };
  AttentionInput input{.q = tensor(kHeads), .k = tensor(tested.key_heads), .v = tensor(tested.key_heads)};
  if (tested.hidden < 0) return input;
  input.key_bias = at::zeros({2, tokens});
  input.key_bias.select(0, 0).narrow(0, 1, 3).fill_(-0.7);
  if (tested.hidden > 0) {
    const int64_t first = tested.grid.is_text_first ? 2 : tokens - tested.hidden;
    input.key_bias.select(0, 1).narrow(0, first, tested.hidden).fill_(-INFINITY);
  }
  return input;
}

struct Gradients {
  at::Tensor out, q, k, v;
};

template <class Attend>
Gradients gradients_of(const AttentionInput& input, const at::Tensor& grad_out, const Attend& attend) {
  const at::AutoGradMode grad_mode(/*enabled=*/true);
  AttentionInput own = input;
  for (at::Tensor* x : {&own.q, &own.k, &own.v}) *x = x->detach().clone().requires_grad_();
  const at::Tensor out = attend(own);
  out.backward(grad_out.to(out.scalar_type()));
  return {out.detach(), own.q.grad(), own.k.grad(), own.v.grad()};
}

// One head of one batch row as the engine planned it.
struct ReferencePlan {
  LayoutPtr layout;
  int64_t layout_head = 0;
  PoolingRule pooling;
  std::vector<int64_t> q_order, k_order;  // raster index at each position
};

std::vector<int64_t> raster_of(const std::shared_ptr<const TokenOrder>& order, int64_t tokens) {
  std::vector<int64_t> raster(static_cast<size_t>(tokens));
  for (int64_t p = 0; p < tokens; ++p) {
    raster[static_cast<size_t>(p)] = order ? order->raster()[static_cast<size_t>(p)] : p;
  }
  return raster;
}

// What an engine of its own plans in the same calls: [2 * kHeads], of the last one.
std::vector<ReferencePlan> plans_of(const Case& tested, int seed) {
  AttentionEngine engine(options_of(tested.rules));
  std::vector<ReferencePlan> plans;
  std::array<size_t, kHeads> rows{};
  const auto note = [&](const AttentionEvent& event) {
    for (size_t i = 0; i < event.heads.size(); ++i) {
      const auto head = static_cast<size_t>(event.heads[i]);
      const bool is_shared = event.plan.layout && event.plan.layout->heads() == 1;
      plans[rows.at(head)++ * kHeads + head] = {.layout = event.plan.layout,
                                                .layout_head = is_shared ? 0 : static_cast<int64_t>(i),
                                                .pooling = event.plan.pooling,
                                                .q_order = raster_of(event.orders.q, tested.grid.tokens()),
                                                .k_order = raster_of(event.orders.k, tested.grid.tokens())};
    }
  };
  engine.set_observer({.on_call = note, .wants_lse = true});
  for (int call = 0; call < tested.calls; ++call) {
    plans.assign(2 * kHeads, {});
    rows.fill(0);
    engine(site_of(tested.grid, 5 + call), input_of(tested, seed + call));
  }
  return plans;
}

// Rows that a query block reads as a matrix [E, Nk] of the members' weights, and their biases [E].
class ReferenceKeys {
 public:
  ReferenceKeys(const ReferencePlan& plan, const at::Tensor& bias) : plan_(plan) {
    bias_.assign(static_cast<size_t>(plan.layout->key_tokens()), 0);
    if (bias.defined()) std::copy_n(bias.data_ptr<double>(), bias_.size(), bias_.begin());
  }

  std::pair<at::Tensor, at::Tensor> of_block(int64_t row) {
    weights_.clear();
    biases_.clear();
    const BlockLayout& layout = *plan_.layout;
    for (int64_t col = 0; col < layout.key_blocks(); ++col) {
      if (const int factor = layout.factor(plan_.layout_head, row, col); factor != 0) add_block(col, factor);
    }
    return {at::from_blob(weights_.data(), {static_cast<int64_t>(biases_.size()), layout.key_tokens()}, at::kDouble)
                .clone(),
            at::tensor(biases_, at::kDouble)};
  }

 private:
  void add_block(int64_t col, int factor) {
    const BlockLayout& layout = *plan_.layout;
    const int64_t begin = layout.key_offsets()[static_cast<size_t>(col)];
    const int64_t end = layout.key_offsets()[static_cast<size_t>(col) + 1];
    const bool is_replicated = factor > 1 && plan_.pooling.replicates_tail && col + 1 == layout.key_blocks();
    const int64_t stop = is_replicated ? std::max(end, begin + plan_.pooling.replicated_size) : end;
    for (int64_t first = begin; first < stop; first += factor) {
      std::vector<double> weight(bias_.size());
      double members = 0, own_bias = 0;
      for (int64_t p = first; p < std::min(first + factor, stop); ++p) {
        const auto token = static_cast<size_t>(plan_.k_order[static_cast<size_t>(std::min(p, end - 1))]);
        own_bias = bias_[token];
        if (own_bias == -INFINITY) continue;
        weight[token] += 1;
        members += 1;
      }
      if (members == 0) continue;
      for (const double count : weight) weights_.push_back(count / members);
      biases_.push_back(factor == 1 ? own_bias : plan_.pooling.has_multiplicity_bias ? std::log(members) : 0);
    }
  }

  const ReferencePlan& plan_;
  std::vector<double> bias_, weights_, biases_;
};

// [Nq, Nk] by raster index: 0 where a layout without pooled pairs keeps the pair, -inf elsewhere.
at::Tensor mask_of(const ReferencePlan& plan) {
  const BlockLayout& layout = *plan.layout;
  at::Tensor mask = at::full({layout.query_tokens(), layout.key_tokens()}, -INFINITY, at::kDouble);
  for (int64_t row = 0; row < layout.query_blocks(); ++row) {
    for (int64_t col = 0; col < layout.key_blocks(); ++col) {
      if (!layout.is_kept(plan.layout_head, row, col)) continue;
      const auto r = static_cast<size_t>(row), c = static_cast<size_t>(col);
      for (int32_t i = layout.query_offsets()[r]; i < layout.query_offsets()[r + 1]; ++i) {
        double* to = mask.data_ptr<double>() + plan.q_order[static_cast<size_t>(i)] * layout.key_tokens();
        for (int32_t j = layout.key_offsets()[c]; j < layout.key_offsets()[c + 1]; ++j) {
          to[plan.k_order[static_cast<size_t>(j)]] = 0;
        }
      }
    }
  }
  return mask;
}

// One head in float64, recorded by autograd operation by operation.
at::Tensor reference_head(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias,
                          const ReferencePlan& plan) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(1)));
  if (!plan.layout || !plan.layout->has_pooled_pairs()) {
    at::Tensor logits = at::mm(q, k.t()) * scale;
    if (bias.defined()) logits = logits + bias;
    if (plan.layout) logits = logits + mask_of(plan);
    return at::mm(logits.softmax(-1), v);
  }
  const std::vector<int32_t>& offsets = plan.layout->query_offsets();
  ReferenceKeys keys(plan, bias);
  std::vector<at::Tensor> blocks;
  for (size_t row = 0; row + 1 < offsets.size(); ++row) {
    const std::vector<int64_t> tokens(plan.q_order.begin() + offsets[row], plan.q_order.begin() + offsets[row + 1]);
    const auto [weights, biases] = keys.of_block(static_cast<int64_t>(row));
    const at::Tensor own_q = q.index_select(0, at::tensor(tokens, at::kLong));
    const at::Tensor logits = at::mm(own_q, at::mm(weights, k).t()) * scale + biases;
    blocks.push_back(at::mm(logits.softmax(-1), at::mm(weights, v)));
  }
  return at::zeros_like(q).index_copy(0, at::tensor(plan.q_order, at::kLong), at::cat(blocks));
}

at::Tensor reference(const AttentionInput& input, const std::vector<ReferencePlan>& plans) {
  const int64_t shared = input.q.size(1) / input.k.size(1);
  std::vector<at::Tensor> heads;
  for (int64_t i = 0; i < input.q.size(0) * input.q.size(1); ++i) {
    const int64_t row = i / input.q.size(1), head = i % input.q.size(1);
    heads.push_back(reference_head(input.q[row][head].to(at::kDouble), input.k[row][head / shared].to(at::kDouble),
                                   input.v[row][head / shared].to(at::kDouble),
                                   input.key_bias.defined() ? input.key_bias[row].to(at::kDouble) : at::Tensor(),
                                   plans[static_cast<size_t>(i)]));
  }
  return at::stack(heads).view(input.q.sizes());
}

// Gradients of the last of the calls.
Gradients recorded(const Case& tested, RecordedAttention& attend, int seed, const at::Tensor& grad_out) {
  for (int call = 0; call + 1 < tested.calls; ++call) {
    AttentionInput input = input_of(tested, seed + call);
    input.q.requires_grad_();
    attend(site_of(tested.grid, 5 + call), input);
  }
  const int last = tested.calls - 1;
  return gradients_of(input_of(tested, seed + last), grad_out,
                      [&](const AttentionInput& input) { return attend(site_of(tested.grid, 5 + last), input); });
}

at::Tensor grad_out_of(const Case& tested) {
  at::manual_seed(99);
  return at::randn({2, tested.grid.tokens(), kHeads, kWidth}).transpose(1, 2);
}

void expect_gradients(const Gradients& actual, const Gradients& expected) {
  EXPECT_TRUE(test::matches(actual.out.to(at::kDouble), expected.out)) << "out";
  EXPECT_TRUE(test::matches(actual.q.to(at::kDouble), expected.q.to(at::kDouble))) << "q";
  EXPECT_TRUE(test::matches(actual.k.to(at::kDouble), expected.k.to(at::kDouble))) << "k";
  EXPECT_TRUE(test::matches(actual.v.to(at::kDouble), expected.v.to(at::kDouble))) << "v";
}

class RecordedMethods : public ::testing::TestWithParam<Case> {};

TEST_P(RecordedMethods, gradients_are_those_of_the_pairs_kept) {
  const Case& tested = GetParam();
  RecordedAttention attend(options_of(tested.rules));
  const at::Tensor grad_out = grad_out_of(tested);
  const Gradients actual = recorded(tested, attend, 1, grad_out);
  const std::vector<ReferencePlan> plans = plans_of(tested, 1);
  const AttentionInput input = input_of(tested, tested.calls);
  expect_gradients(actual,
                   gradients_of(input, grad_out, [&](const AttentionInput& own) { return reference(own, plans); }));
  if (tested.name.starts_with("psa")) {
    const auto is_pooled = [](const ReferencePlan& plan) { return plan.layout->has_pooled_pairs(); };
    EXPECT_TRUE(std::any_of(plans.begin(), plans.end(), is_pooled));
  }
  const std::vector<RecordedRow> rows = attend.rows();
  ASSERT_FALSE(rows.empty());
  EXPECT_EQ(rows.back().backward, tested.backward);
  EXPECT_EQ(rows.back().backward_calls, 1);
  EXPECT_GT(rows.back().backward_ms, 0);
}

TEST_P(RecordedMethods, two_runs_give_equal_bits) {
  const Case& tested = GetParam();
  RecordedAttention first(options_of(tested.rules)), second(options_of(tested.rules));
  const at::Tensor grad_out = grad_out_of(tested);
  const Gradients a = recorded(tested, first, 1, grad_out), b = recorded(tested, second, 1, grad_out);
  EXPECT_TRUE(at::equal(a.out, b.out) && at::equal(a.q, b.q) && at::equal(a.k, b.k) && at::equal(a.v, b.v));
}

const std::string kRadial = "radial:block_size=16,decay_factor=0.4,dense_steps=0,dense_layers=0";
const std::string kWindow = "window:window=1/1/1,block_size=16,dense_steps=0";
const std::string kVmoba = "vmoba:partition=3d,chunk_3d=2/3/4,topk=4,dense_steps=0,dense_layers=0";
const std::string kPsa = "psa:block_size=16,query_block=16,cap=off,dense_steps=0,dense_layers=0";
const std::string kAdaspa = "adaspa:block_size=16,dense_steps=0,dense_layers=0";
const std::string kSparsed = "sparsed:block_size=16,dense_steps=0,dense_layers=0";
const std::string kTopk = "topk:keep=0.3,block_size=16";

INSTANTIATE_TEST_SUITE_P(
    Cases, RecordedMethods,
    ::testing::Values(Case{"dense", {}, "dense_blocks"}, Case{"radial", {kRadial}, "gathered_blocks"},
                      Case{"radial_text_first", {kRadial}, "gathered_blocks", 1, kTextFirst},
                      Case{"window_without_text_or_bias", {kWindow}, "gathered_blocks", 1, kVideo, kHeads, -1},
                      Case{"vmoba", {kVmoba}, "gathered_blocks"},
                      Case{"vmoba_text_first_shared_keys", {kVmoba}, "gathered_blocks", 1, kTextFirst, 2},
                      Case{"psa", {kPsa}, "gathered_blocks"},
                      Case{"psa_replicated_tail", {kPsa + ",tail=replicate,ends=0.2/0.4/0.6/1"}, "gathered_blocks"},
                      Case{"psa_shared_keys", {kPsa}, "gathered_blocks", 1, kVideo, 1, -1},
                      Case{"adaspa_searching", {kAdaspa}, "dense_blocks"},
                      Case{"adaspa", {kAdaspa}, "gathered_blocks", 2},
                      Case{"sparsed", {kSparsed}, "gathered_blocks", 2}, Case{"topk", {kTopk}, "gathered_blocks"},
                      Case{"heads_of_three_rules",
                           {kRadial + ",heads=0/3", kTopk + ",heads=1"},
                           "gathered_blocks+dense_blocks",
                           1,
                           kTextLast,
                           2}),
    [](const auto& tested) { return tested.param.name; });

TEST(RecordedAttention, without_autograd_is_the_engine) {
  const Case tested{.name = "", .rules = {kTopk}};
  RecordedAttention attend(options_of(tested.rules));
  AttentionEngine engine(options_of(tested.rules));
  const AttentionInput input = input_of(tested, 3);
  EXPECT_TRUE(at::equal(attend(site_of(kTextLast), input), engine(site_of(kTextLast), input)));
  AttentionInput recorded = input;
  recorded.q = recorded.q.clone().requires_grad_();
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(attend(site_of(kTextLast), recorded).requires_grad());
  EXPECT_TRUE(attend.rows().empty());
  EXPECT_EQ(attend.engine().stats().rows().at(0).calls, engine.stats().rows().at(0).calls * 2);
}

// By plain operators where it is small.
void check_cross_attention(int64_t queries, const std::string& backward) {
  RecordedAttention attend(options_of({kRadial}));
  AttentionSite site = site_of(kTextLast);
  site.kind = AttentionKind::kCross;
  at::manual_seed(4);
  AttentionInput input{.q = at::randn({2, kHeads, queries, kWidth}),
                       .k = at::randn({2, kHeads, 14, kWidth}),
                       .v = at::randn({2, kHeads, 14, kWidth}),
                       .key_bias = at::zeros({2, 14})};
  input.key_bias.select(0, 0).narrow(0, 9, 5).fill_(-INFINITY);
  input.key_bias.select(0, 1).narrow(0, 2, 3).fill_(-INFINITY);
  const at::Tensor grad_out = at::randn_like(input.q);
  const Gradients actual = gradients_of(input, grad_out, [&](const AttentionInput& own) { return attend(site, own); });
  expect_gradients(actual, gradients_of(input, grad_out, [](const AttentionInput& own) {
                     return reference(own, std::vector<ReferencePlan>(2 * kHeads));
                   }));
  EXPECT_EQ(actual.k[0].narrow(1, 9, 5).abs().max().item<float>(), 0);
  ASSERT_EQ(attend.rows().size(), 1U);
  EXPECT_EQ(attend.rows()[0].kind, "cross");
  EXPECT_EQ(attend.rows()[0].pattern, "dense");
  EXPECT_EQ(attend.rows()[0].backward, backward);
}

TEST(RecordedAttention, cross_attention_is_dense_under_any_rules) {
  check_cross_attention(50, "torch_matmul");
  check_cross_attention(1200, "dense_blocks");
}

TEST(RecordedAttention, what_hidden_keys_hold_reaches_no_gradient) {
  const Case tested{.name = "", .rules = {kPsa}};
  const at::Tensor grad_out = grad_out_of(tested);
  AttentionInput input = input_of(tested, 6);
  const auto run = [&] {
    RecordedAttention attend(options_of(tested.rules));
    return gradients_of(input, grad_out, [&](const AttentionInput& own) { return attend(site_of(kTextLast), own); });
  };
  const Gradients plain = run();
  for (at::Tensor* x : {&input.k, &input.v}) x->select(0, 1).narrow(1, kTextLast.tokens() - 3, 3).fill_(NAN);
  const Gradients poisoned = run();
  EXPECT_TRUE(at::equal(plain.q, poisoned.q) && at::equal(plain.k, poisoned.k) && at::equal(plain.v, poisoned.v));
}

TEST(RecordedAttention, gradients_are_the_slopes_of_the_output) {
  const Case tested{.name = "", .rules = {kWindow}, .grid = {.frames = 2, .rows = 4, .cols = 5}, .hidden = -1};
  RecordedAttention attend(options_of(tested.rules));
  const at::Tensor grad_out = grad_out_of(tested);
  const AttentionSite site = site_of(tested.grid);
  const AttentionInput input = input_of(tested, 7);
  const Gradients actual = gradients_of(input, grad_out, [&](const AttentionInput& own) { return attend(site, own); });
  const auto loss = [&](const AttentionInput& own) {
    return (attend(site, own).to(at::kDouble) * grad_out).sum().item<double>();
  };
  constexpr double kStep = 5e-3;
  for (const auto& [member, grad] : std::vector<std::pair<at::Tensor AttentionInput::*, at::Tensor>>{
           {&AttentionInput::q, actual.q}, {&AttentionInput::k, actual.k}, {&AttentionInput::v, actual.v}}) {
    const at::Tensor direction = at::randn_like(grad) + grad / grad.norm();
    AttentionInput ahead = input, behind = input;
    ahead.*member = input.*member + direction * kStep;
    behind.*member = input.*member - direction * kStep;
    const double slope = (direction.to(at::kDouble) * grad).sum().item<double>();
    EXPECT_NEAR((loss(ahead) - loss(behind)) / (2 * kStep), slope, 2e-3 * std::abs(slope) + 1e-3);
  }
}

TEST(RecordedAttention, rows_add_up_by_what_ran) {
  const Case tested{.name = "", .rules = {kWindow + ",dense_layers=1"}};
  RecordedAttention attend(options_of(tested.rules));
  const at::Tensor grad_out = grad_out_of(tested);
  AttentionSite site = site_of(kTextLast);
  for (const int layer : {0, 1, 2}) {
    site.layer = layer;
    (void)gradients_of(input_of(tested, 8), grad_out, [&](const AttentionInput& own) { return attend(site, own); });
  }
  const std::vector<RecordedRow> rows = attend.rows();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].pattern, "dense");
  EXPECT_EQ(rows[0].backward_calls, 1);
  EXPECT_EQ(rows[1].pattern, "window");
  EXPECT_EQ(rows[1].backward, "gathered_blocks");
  EXPECT_EQ(rows[1].calls, 2);
  EXPECT_EQ(rows[1].backward_calls, 2);
}

TEST(RecordedAttention, refuses_what_it_has_no_gradient_of) {
  const Case tested{.name = "", .rules = {kWindow}};
  RecordedAttention attend(options_of(tested.rules));
  AttentionInput input = input_of(tested, 9);
  input.key_bias.requires_grad_();
  EXPECT_THAT([&] { attend(site_of(kTextLast), input); }, ThrowsMessage<UnsupportedError>(HasSubstr("key bias")));
  input.key_bias = at::Tensor();
  input.q.requires_grad_();
  const at::Tensor loss = attend(site_of(kTextLast), input).sum();
  EXPECT_THAT([&] { loss.backward({}, std::nullopt, /*create_graph=*/true); },
              ThrowsMessage<UnsupportedError>(HasSubstr("gradients of gradients")));
  input.q = at::randn({2, kHeads, 5}).requires_grad_();
  EXPECT_THROW(attend(site_of(kTextLast), input), ShapeError);
}

}  // namespace
}  // namespace strobe::training
