// What every pattern of patterns.inc has to hold, whatever it chooses by.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attention/pattern.h"
#include "attention/schedule.h"
#include "attention/torch_scorer.h"
#include "core/error.h"
#include "tests/support/fill.h"

namespace strobe::attention {
namespace {

// What the suite has to know of a method to ask for more than the general checks. A method without a row is run with
// its defaults.
struct MethodCase {
  std::string small_blocks;          // options under which the suite's grids have many blocks
  std::string full;                  // options of the full budget
  std::vector<std::string> budgets;  // options of falling density
};

const std::map<std::string, MethodCase>& method_cases() {
  static const std::map<std::string, MethodCase> cases = {
      {"radial",
       {.small_blocks = "block_size=8",
        .full = "decay_factor=1000000,decimation=1",
        .budgets = {"decimation=8,decay_factor=2", "decimation=8,decay_factor=0.4",
                    "decimation=8,decay_factor=0.4,sink_frames=0",
                    "decimation=8,decay_factor=0.4,sink_frames=0,neighbour=half"}}},
      {"window",
       {.small_blocks = "block_size=8",
        .full = "window=1000/1000/1000",
        .budgets = {"window=4/4/4", "window=2/2/3", "window=1/1/1", "window=0/0/0"}}},
      {"vmoba",
       {.small_blocks = "partition=3d,chunk_3d=2/3/4", .full = "topk=1000", .budgets = {"topk=8", "topk=4", "topk=1"}}},
      {"psa",
       {.small_blocks = "block_size=8,query_block=8",
        .full = "ends=1/1/1/1,cap=off",
        .budgets = {"rule=quota,cap=off,ends=0.6/0.8/0.9/1", "rule=quota,cap=off,ends=0.4/0.6/0.7/0.8",
                    "rule=quota,cap=off,ends=0.2/0.3/0.4/0.5", "rule=quota,cap=off,ends=0.05/0.1/0.15/0.2"}}},
      {"adaspa",
       {.small_blocks = "block_size=8",
        .full = "sparsity=0",
        .budgets = {"sparsity=0.2", "sparsity=0.5", "sparsity=0.8", "sparsity=0.95"}}},
      {"sparsed",
       {.small_blocks = "block_size=8", .full = "keep=1", .budgets = {"keep=0.7", "keep=0.4", "keep=0.1", "keep=0"}}},
      {"topk",
       {.small_blocks = "block_size=8", .full = "keep=1", .budgets = {"keep=0.7", "keep=0.4", "keep=0.1", "keep=0"}}},
  };
  return cases;
}

std::string joined(const std::string& a, const std::string& b) { return a.empty() || b.empty() ? a + b : a + "," + b; }

const std::vector<TokenGrid>& grids() {
  static const std::vector<TokenGrid> grids = {
      {.frames = 1, .rows = 2, .cols = 4},                                            // one small block
      {.frames = 1, .rows = 1, .cols = 1},                                            // one token
      {.frames = 2, .rows = 1, .cols = 2, .text_tokens = 3},                          // smaller than a block
      {.frames = 5, .rows = 6, .cols = 7},                                            // last block ragged
      {.frames = 5, .rows = 6, .cols = 7, .text_tokens = 11},                         // text behind, border in a block
      {.frames = 5, .rows = 6, .cols = 7, .text_tokens = 11, .is_text_first = true},  // text in front
      {.frames = 9, .rows = 8, .cols = 10, .text_tokens = 77},                        // blocks of 128 and text across
      {.frames = 3, .rows = 16, .cols = 16, .text_tokens = 64, .is_text_first = true},  // nothing ragged
  };
  return grids;
}

std::string described(const TokenGrid& grid) {
  return fmt::format("{}x{}x{} and {} text tokens {}", grid.frames, grid.rows, grid.cols, grid.text_tokens,
                     grid.is_text_first ? "first" : "last");
}

AttentionSite site_of(const TokenGrid& grid, int step = 10, int layer = 0) {
  return {.layer = layer,
          .layers = 30,
          .branches = {Branch::kCond},
          .step = step,
          .steps = 50,
          .sigma = 0.5,
          .grid = grid,
          .plans_always = true};
}

struct Inputs {
  at::Tensor q, k, key_bias;  // in raster order
};

Inputs inputs_of(const TokenGrid& grid, int64_t heads) {
  const std::vector<int64_t> shape = {1, heads, grid.tokens(), 16};
  return {.q = test::fill_input(1, shape), .k = test::fill_input(2, shape), .key_bias = {}};
}

// The calls of a layer over some steps: what was planned, and what was learned.
struct History {
  std::vector<AttentionPlan> plans;
  std::vector<LayoutPtr> observed;
  PatternState state;

  std::vector<LayoutPtr> layouts() const {
    std::vector<LayoutPtr> all;
    for (const AttentionPlan& plan : plans) all.push_back(plan.layout);
    all.insert(all.end(), observed.begin(), observed.end());
    all.push_back(state.layout);
    all.erase(std::remove(all.begin(), all.end(), nullptr), all.end());
    return all;
  }
  // The layout in force after the calls; null: dense.
  LayoutPtr last() const {
    if (!observed.empty() && observed.back() != nullptr) return observed.back();
    return plans.back().layout;
  }
};

at::Tensor in_order(const at::Tensor& tensor, const std::shared_ptr<const TokenOrder>& order, int64_t axis) {
  if (!tensor.defined() || order == nullptr) return tensor;
  return tensor.index_select(axis, at::tensor(order->raster(), at::kInt));
}

History run(const AttentionPattern& pattern, const TokenGrid& grid, const Inputs& inputs, int layer = 0) {
  const TorchScorer scorer;
  History history;
  for (const int step : {10, 11}) {
    const AttentionSite site = site_of(grid, step, layer);
    const PatternOrders orders = pattern.order(site);
    const at::Tensor q = in_order(inputs.q, orders.q, 2), k = in_order(inputs.k, orders.k, 2);
    const at::Tensor bias = in_order(inputs.key_bias, orders.k, 1);
    const PatternCall call{.site = site, .q = q, .k = k, .key_bias = bias, .scorer = scorer, .state = history.state};
    history.plans.push_back(pattern.plan(call));
    if (!history.plans.back().wants_lse) continue;
    history.observed.push_back(pattern.observe(call, scorer.row_lse({.q = q, .k = k, .key_bias = bias, .scale = 0})));
  }
  return history;
}

bool is_equal(const LayoutPtr& a, const LayoutPtr& b) { return a == b || (a != nullptr && b != nullptr && *a == *b); }

void expect_equal(const History& a, const History& b) {
  ASSERT_EQ(a.plans.size(), b.plans.size());
  for (size_t i = 0; i < a.plans.size(); ++i) {
    EXPECT_TRUE(is_equal(a.plans[i].layout, b.plans[i].layout)) << "call " << i;
    EXPECT_EQ(a.plans[i].note, b.plans[i].note);
    EXPECT_EQ(a.plans[i].wants_lse, b.plans[i].wants_lse);
    EXPECT_EQ(a.plans[i].pooling.has_multiplicity_bias, b.plans[i].pooling.has_multiplicity_bias);
    EXPECT_EQ(a.plans[i].pooling.replicates_tail, b.plans[i].pooling.replicates_tail);
    EXPECT_EQ(a.plans[i].pooling.replicated_size, b.plans[i].pooling.replicated_size);
  }
  ASSERT_EQ(a.observed.size(), b.observed.size());
  for (size_t i = 0; i < a.observed.size(); ++i) EXPECT_TRUE(is_equal(a.observed[i], b.observed[i])) << "call " << i;
}

// Of each block, whether it holds a text token.
std::vector<bool> text_blocks(const TokenGrid& grid, const std::shared_ptr<const TokenOrder>& order,
                              const std::vector<int32_t>& offsets) {
  const int64_t first_text = grid.is_text_first ? 0 : grid.video_tokens();
  std::vector<bool> has_text(offsets.size() - 1);
  for (size_t block = 0; block + 1 < offsets.size(); ++block) {
    for (int32_t p = offsets[block]; p < offsets[block + 1]; ++p) {
      const int64_t token = order == nullptr ? p : order->raster()[static_cast<size_t>(p)];
      if (token >= first_text && token < first_text + grid.text_tokens) has_text[block] = true;
    }
  }
  return has_text;
}

void check_layout(const BlockLayout& layout, const TokenGrid& grid, const PatternOrders& orders, int64_t heads) {
  EXPECT_NO_THROW(layout.validate());
  EXPECT_EQ(layout.query_tokens(), grid.tokens());
  EXPECT_EQ(layout.key_tokens(), grid.tokens());
  EXPECT_TRUE(layout.heads() == 1 || layout.heads() == heads) << layout.heads();
  EXPECT_GT(layout.density(), 0);
  EXPECT_LE(layout.density(), 1);
  const std::vector<bool> text_rows = text_blocks(grid, orders.q, layout.query_offsets());
  const std::vector<bool> text_cols = text_blocks(grid, orders.k, layout.key_offsets());
  for (int64_t head = 0; head < layout.heads(); ++head) {
    for (int64_t row = 0; row < layout.query_blocks(); ++row) {
      for (int64_t col = 0; col < layout.key_blocks(); ++col) {
        if (!text_rows[static_cast<size_t>(row)] && !text_cols[static_cast<size_t>(col)]) continue;
        ASSERT_TRUE(layout.is_kept(head, row, col)) << "text of head " << head << ": " << row << ", " << col;
      }
    }
  }
}

class Conformance : public ::testing::TestWithParam<std::string> {
 protected:
  static const PatternInfo& info() { return pattern_info(GetParam()); }
  static bool is_known() { return method_cases().contains(GetParam()); }
  static MethodCase known() { return is_known() ? method_cases().at(GetParam()) : MethodCase{}; }
  static std::unique_ptr<AttentionPattern> make(const std::string& options) {
    return make_pattern(GetParam(), parse_option_text(options, GetParam()));
  }
  // The defaults, and small blocks.
  static std::vector<std::string> option_sets() {
    std::vector<std::string> sets = {""};
    if (!known().small_blocks.empty()) sets.push_back(known().small_blocks);
    return sets;
  }
};

// Calls visit(pattern, grid, heads) for every combination.
template <class Visit>
void for_cases(const std::vector<std::string>& option_sets,
               const std::function<std::unique_ptr<AttentionPattern>(const std::string&)>& make, const Visit& visit) {
  for (const std::string& options : option_sets) {
    const auto pattern = make(options);
    for (const TokenGrid& grid : grids()) {
      for (const int64_t heads : {1, 3}) {
        SCOPED_TRACE(fmt::format("'{}', {}, {} heads", options, described(grid), heads));
        visit(*pattern, grid, heads);
      }
    }
  }
}

TEST_P(Conformance, says_what_it_is) {
  EXPECT_FALSE(info().sentence.empty());
  EXPECT_FALSE(info().source.empty());
  EXPECT_GE(info().dense_fraction, 0);
  EXPECT_LT(info().dense_fraction, 1);
  EXPECT_EQ(make("")->name(), GetParam());
  for (const OptionDescription& option : describe_options(GetParam())) {
    EXPECT_FALSE(option.sentence.empty()) << option.name;
  }
  for (const PatternPreset& preset : info().presets) {
    EXPECT_FALSE(preset.sentence.empty()) << preset.name;
    EXPECT_NO_THROW(make("preset=" + preset.name)) << preset.name;
  }
}

TEST_P(Conformance, orders_hold_every_token_and_put_the_text_last) {
  for_cases(option_sets(), make, [](const AttentionPattern& pattern, const TokenGrid& grid, int64_t) {
    for (int layer = 0; layer < 3; ++layer) {
      const PatternOrders orders = pattern.order(site_of(grid, 10, layer));
      for (const auto& order : {orders.q, orders.k}) {
        if (order == nullptr) continue;
        ASSERT_EQ(order->size(), grid.tokens());
        const int64_t first_text = grid.is_text_first ? 0 : grid.video_tokens();
        for (int64_t i = 0; i < grid.text_tokens; ++i) {
          EXPECT_EQ(order->raster()[static_cast<size_t>(grid.video_tokens() + i)], first_text + i);
        }
      }
    }
  });
}

TEST_P(Conformance, layouts_are_valid_and_never_drop_text) {
  for_cases(option_sets(), make, [](const AttentionPattern& pattern, const TokenGrid& grid, int64_t heads) {
    for (int layer = 0; layer < 3; ++layer) {
      const History history = run(pattern, grid, inputs_of(grid, heads), layer);
      const PatternOrders orders = pattern.order(site_of(grid, 10, layer));
      for (const LayoutPtr& layout : history.layouts()) check_layout(*layout, grid, orders, heads);
      for (const AttentionPlan& plan : history.plans) {
        EXPECT_TRUE(plan.layout != nullptr || plan.wants_lse || !plan.note.empty()) << "dense without a reason";
      }
    }
  });
}

TEST_P(Conformance, same_inputs_give_the_same_plan) {
  for_cases(option_sets(), make, [](const AttentionPattern& pattern, const TokenGrid& grid, int64_t heads) {
    const Inputs inputs = inputs_of(grid, heads);
    expect_equal(run(pattern, grid, inputs), run(pattern, grid, inputs));
  });
}

TEST_P(Conformance, plans_depend_on_no_more_than_declared) {
  for_cases(option_sets(), make, [](const AttentionPattern& pattern, const TokenGrid& grid, int64_t heads) {
    const PlanDependence dependence = pattern.dependence();
    if (dependence.on_tensors || dependence.on_state) return;
    const History planned = run(pattern, grid, inputs_of(grid, heads));
    expect_equal(planned, run(pattern, grid, {}));
    if (!dependence.on_layer) expect_equal(planned, run(pattern, grid, {}, 2));
    EXPECT_TRUE(is_equal(planned.plans[0].layout, planned.plans[1].layout)) << "depends on the step";
  });
}

TEST_P(Conformance, keeps_what_it_learns_in_its_state) {
  for_cases(option_sets(), make, [](const AttentionPattern& pattern, const TokenGrid& grid, int64_t heads) {
    const History history = run(pattern, grid, inputs_of(grid, heads));
    if (!pattern.dependence().on_state) {
      EXPECT_EQ(history.state.bytes(), 0);
      return;
    }
    EXPECT_GT(history.state.bytes(), 0);
    EXPECT_LE(history.state.bytes(), pattern.state_bytes(grid, heads));
    for (const LayoutPtr& observed : history.observed) {
      EXPECT_TRUE(observed == nullptr || history.state.layout != nullptr);
    }
  });
}

TEST_P(Conformance, hidden_text_keys_change_no_plan) {
  const TokenGrid grid{.frames = 5, .rows = 6, .cols = 7, .text_tokens = 11};
  for (const std::string& options : option_sets()) {
    const auto pattern = make(options);
    Inputs inputs = inputs_of(grid, 2);
    inputs.key_bias = at::zeros({1, grid.tokens()}, at::kFloat);
    inputs.key_bias.narrow(1, grid.tokens() - 4, 4).fill_(-INFINITY);
    const History planned = run(*pattern, grid, inputs);
    inputs.k.narrow(2, grid.tokens() - 4, 4).fill_(1e3);
    expect_equal(planned, run(*pattern, grid, inputs));
  }
}

TEST_P(Conformance, full_budget_keeps_everything) {
  if (!is_known()) GTEST_SKIP() << "no row for " << GetParam();
  const auto make_full = [](const std::string& options) { return make(joined(options, known().full)); };
  for_cases(option_sets(), make_full, [](const AttentionPattern& pattern, const TokenGrid& grid, int64_t heads) {
    for (int layer = 0; layer < 3; ++layer) {
      const LayoutPtr layout = run(pattern, grid, inputs_of(grid, heads), layer).last();
      EXPECT_TRUE(layout == nullptr || layout->is_full());
    }
  });
}

TEST_P(Conformance, density_falls_with_the_budget) {
  if (!is_known()) GTEST_SKIP() << "no row for " << GetParam();
  const TokenGrid grid{.frames = 9, .rows = 6, .cols = 8, .text_tokens = 5};
  double previous = 2;
  for (const std::string& budget : known().budgets) {
    const LayoutPtr layout = run(*make(joined(known().small_blocks, budget)), grid, inputs_of(grid, 2)).last();
    ASSERT_NE(layout, nullptr) << budget;
    EXPECT_LT(layout->density(), previous) << budget;
    previous = layout->density();
  }
  EXPECT_LT(previous, 0.9);
}

std::vector<std::string> sparse_methods() {
  std::vector<std::string> names = pattern_names();
  names.erase(std::remove(names.begin(), names.end(), "dense"), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Patterns, Conformance, ::testing::ValuesIn(sparse_methods()),
                         [](const auto& method) { return method.param; });

TEST(ConformanceTable, has_no_row_for_a_method_that_is_none) {
  for (const auto& [name, method] : method_cases()) EXPECT_THAT(pattern_names(), ::testing::Contains(name));
}

}  // namespace
}  // namespace strobe::attention
