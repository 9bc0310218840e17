#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "attention/pattern.h"
#include "attention/patterns/vmoba_selection.h"
#include "attention/schedule.h"
#include "attention/torch_scorer.h"
#include "core/error.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/levels.h"
#include "weights/safetensors.h"

namespace strobe::attention {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Inputs {
  TokenGrid grid;
  at::Tensor q, k;  // [1, H, N, D] in the pattern's order
  int layer = 0;
};

AttentionPlan plan(const std::string& options, const Inputs& inputs, bool plans_always = true) {
  const auto pattern = make_pattern("vmoba", parse_option_text(options, "vmoba"));
  const AttentionSite site{.layer = inputs.layer, .grid = inputs.grid, .plans_always = plans_always};
  const TorchScorer scorer;
  PatternState state;
  const at::Tensor none;
  return pattern->plan(
      {.site = site, .q = inputs.q, .k = inputs.k, .key_bias = none, .scorer = scorer, .state = state});
}

LayoutPtr layout(const std::string& options, const Inputs& inputs) { return plan(options, inputs).layout; }

std::vector<int32_t> order(const std::string& options, const TokenGrid& grid, int layer = 0) {
  const auto pattern = make_pattern("vmoba", parse_option_text(options, "vmoba"));
  const PatternOrders orders = pattern->order({.layer = layer, .grid = grid});
  EXPECT_EQ(orders.q, orders.k);
  return orders.q->raster();
}

// Blocks as rows, queries as columns, as the worked examples print them.
std::vector<std::string> blocks_of(const BlockLayout& layout) {
  std::vector<std::string> blocks;
  for (int64_t col = 0; col < layout.key_blocks(); ++col) {
    std::string& text = blocks.emplace_back();
    for (int64_t row = 0; row < layout.query_blocks(); ++row) text += layout.is_kept(0, row, col) ? '1' : '0';
  }
  return blocks;
}

Inputs worked_example() {
  return {.grid = {.frames = 4, .rows = 1, .cols = 2},
          .q = at::tensor({-4., -1., -2., 3., 5., 6., 4., -6., 0., -1., -4., 4., 2., 3., -2., -5.}, at::kFloat)
                   .view({1, 1, 8, 2}),
          .k = at::tensor({-3., -3., -2., 2., -3., -6., 4., -2., 2., -2., -4., -3., -3., 3., -3., 1.}, at::kFloat)
                   .view({1, 1, 8, 2})};
}

Inputs random_inputs(const TokenGrid& grid, int64_t heads, int64_t width = 8, uint32_t seed = 0) {
  return {.grid = grid,
          .q = test::fill_input(2 * seed, {1, heads, grid.tokens(), width}),
          .k = test::fill_input(2 * seed + 1, {1, heads, grid.tokens(), width})};
}

TEST(Vmoba, orders_tokens_block_by_block) {
  const TokenGrid grid{.frames = 2, .rows = 2, .cols = 4};
  std::vector<int32_t> raster(16);
  std::iota(raster.begin(), raster.end(), 0);
  EXPECT_EQ(order("partition=1d,chunk_1d=1", grid), raster);
  EXPECT_THAT(order("partition=2d,chunk_2d=1/2", grid),
              ElementsAre(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  EXPECT_THAT(order("partition=2d,chunk_2d=2/2", grid),
              ElementsAre(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  EXPECT_THAT(order("partition=3d,chunk_3d=1/2/2", grid),
              ElementsAre(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  EXPECT_EQ(order("partition=3d,chunk_3d=1/1/2", grid), raster);
}

TEST(Vmoba, partitions_take_turns_over_the_layers) {
  const TokenGrid grid{.frames = 4, .rows = 6, .cols = 8};
  const std::string chunks = "chunk_1d=1,chunk_2d=3/4,chunk_3d=2/3/4,topk=1/2/3";
  for (int layer = 0; layer < 30; ++layer) {
    const std::string same = std::vector<std::string>{"1d", "2d", "3d"}[static_cast<size_t>(layer % 3)];
    EXPECT_EQ(order(chunks, grid, layer), order(chunks + ",partition=" + same, grid)) << layer;
  }
  Inputs inputs = random_inputs(grid, 1);
  for (inputs.layer = 0; inputs.layer < 3; ++inputs.layer) {
    EXPECT_EQ(layout(chunks, inputs)->kept_blocks(), (inputs.layer + 1) * grid.tokens());
  }
}

TEST(Vmoba, worked_example) {
  const std::pair<const char*, std::vector<std::string>> cases[] = {
      {"pool=local,topk=2", {"11000010", "00111001", "00011100", "11100111"}},
      {"pool=global,topk=2", {"11000101", "00110001", "00011101", "11000111"}},
      {"pool=overall,topk=2", {"11000101", "00110001", "00011101", "11000111"}},
      {"pool=local,topk=3", {"11111110", "00111001", "11011111", "11100111"}},
      {"pool=global,topk=3", {"11001111", "10111001", "11011101", "11101111"}},
      {"mode=threshold,pool=local,tau=0.25", {"11000010", "00111001", "00011100", "11100111"}},
      {"mode=threshold,pool=local,tau=0.5", {"11000010", "00111001", "00011101", "11100111"}},
      {"mode=threshold,pool=local,tau=0.75", {"11100110", "00111001", "00011101", "11100111"}},
      {"mode=threshold,pool=global,tau=0.25", {"11000000", "00110000", "00001100", "00000111"}},
      {"mode=threshold,pool=global,tau=0.5", {"11000000", "00110001", "00011101", "01000111"}},
      {"mode=threshold,tau=0.75", {"11000101", "10111001", "10011101", "11000111"}},
      {"mode=threshold,pool=block,tau=0.5", {"11000100", "00110001", "00011101", "01000111"}},
      {"topk=1", {"11000000", "00110000", "00001100", "00000011"}},
      {"mode=threshold,tau=1", {"11111111", "11111111", "11111111", "11111111"}},
  };
  for (const auto& [options, blocks] : cases) {
    const LayoutPtr mask = layout(std::string("partition=1d,chunk_1d=1,") + options, worked_example());
    EXPECT_EQ(blocks_of(*mask), blocks) << options;
  }
}

TEST(Vmoba, last_block_is_judged_by_its_own_length) {
  Inputs inputs = worked_example();
  inputs.grid = {.frames = 7, .rows = 1, .cols = 1};
  inputs.q = inputs.q.narrow(2, 0, 7);
  inputs.k = inputs.k.narrow(2, 0, 7);
  // The gate of the last block, 9 15 3 -30 -3 24 3, is the largest of the others' for queries 0, 1, 2 and 5.
  EXPECT_EQ(blocks_of(*layout("partition=1d,chunk_1d=2,topk=2", inputs))[3], "1110011");
}

std::string partition_options(const std::vector<int64_t>& chunk) {
  if (chunk.size() == 2) return fmt::format("partition=2d,chunk_2d={}/{}", chunk[0], chunk[1]);
  return fmt::format("partition=3d,chunk_3d={}/{}/{}", chunk[0], chunk[1], chunk[2]);
}

TEST(Vmoba, golden_files_hold_bit_for_bit_but_for_listed_ties) {
  struct Case {
    const char* name;
    TokenGrid grid;
    std::string options;
  };
  const TokenGrid grid{.frames = 4, .rows = 6, .cols = 8};
  const std::string windows = partition_options({3, 4}), boxes = partition_options({2, 3, 4});
  const std::string threshold = ",mode=threshold,tau=0.25,pool=";
  const Case cases[] = {
      {"A01_1d_topk_local_k2", grid, "partition=1d,chunk_1d=1,topk=2"},
      {"A02_1d_frac_threshold_local", grid, "partition=1d,chunk_1d=1.5" + threshold + "local"},
      {"A03_1d_ragged_threshold_local",
       {.frames = 7, .rows = 4, .cols = 6},
       "partition=1d,chunk_1d=2,mode=threshold,tau=0.5,pool=local"},
      {"A04_2d_threshold_head", grid, windows + threshold + "global"},
      {"A05_2d_topk_head_k3", grid, partition_options({2, 2}) + ",topk=3,pool=global"},
      {"A06_3d_threshold_head", grid, boxes + threshold + "global"},
      {"A07_3d_threshold_local", grid, boxes + threshold + "local"},
      {"A08_3d_threshold_overall", grid, boxes + threshold + "overall"},
      {"A09_3d_threshold_block", grid, boxes + threshold + "block"},
      {"A10_3d_topk_local_k3", grid, boxes + ",topk=3"},
      {"A11_3d_topk_overall_k3", grid, boxes + ",topk=3,pool=overall"},
      {"A12_3d_threshold_head_tau50",
       {.frames = 4, .rows = 10, .cols = 13},
       partition_options({2, 5, 13}) + ",mode=threshold,tau=0.5,pool=global"},
      {"A13_3d_threshold_head_tau25_c72",
       {.frames = 6, .rows = 8, .cols = 12},
       partition_options({2, 2, 2}) + threshold + "global"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const auto file =
        weights::open_safetensors(test::golden_path(fmt::format("patterns/vmoba_{}.safetensors", c.name)));
    const std::vector<int32_t> raster = order(c.options, c.grid);
    const at::Tensor perm = at::tensor(raster, at::kInt);
    ASSERT_TRUE(at::equal(perm, file->read("perm")));
    const at::Tensor q = file->read("q").index_select(2, perm), k = file->read("k").index_select(2, perm);
    const LayoutPtr mask = layout(c.options, {.grid = c.grid, .q = q, .k = k});
    EXPECT_TRUE(at::equal(at::tensor(mask->key_offsets(), at::kInt), file->read("block_offsets")));
    at::Tensor differs = test::levels(*mask) != file->read("level");
    const at::Tensor ties = file->read("ties").to(at::kLong);
    for (int64_t i = 0; i < ties.size(0); ++i) {
      differs[ties[i][0].item<int64_t>()][ties[i][1].item<int64_t>()][ties[i][2].item<int64_t>()] = false;
    }
    EXPECT_EQ(differs.sum().item<int64_t>(), 0);
    const at::Tensor out = test::masked_attention(*mask, q, k, file->read("v").index_select(2, perm));
    EXPECT_TRUE(test::matches(out.to(at::kFloat), file->read("out").index_select(2, perm)));
  }
}

struct Entry {
  float value;
  int64_t flat, head, block, query;
};

// Marks of a group by sorting all of it.
void mark_sorted(std::vector<Entry> others, const std::vector<float>& own, const GateRule& rule, int64_t count,
                 at::Tensor& kept) {
  const auto is_before = [](const Entry& a, const Entry& b) {
    return a.value != b.value ? a.value > b.value : a.flat < b.flat;
  };
  if (rule.is_threshold) {
    float low = own[0], high = own[0];
    for (const float gate : own) low = std::min(low, gate), high = std::max(high, gate);
    for (const Entry& e : others) low = std::min(low, e.value), high = std::max(high, e.value);
    const float width = high - low > 1e-6F ? high - low : 1.0F;
    double own_mass = 0, total = 0;
    for (const float gate : own) own_mass += (gate - low) / width;
    for (Entry& e : others) total += e.value = (e.value - low) / width;
    total += own_mass;
    const double rest = std::max(0.0, rule.tau - own_mass / (total + 1e-6));
    std::sort(others.begin(), others.end(), is_before);
    double sum = 0;
    count = 0;
    while (count < static_cast<int64_t>(others.size())) {
      sum += others[static_cast<size_t>(count++)].value;
      if (sum / (total + 1e-6) >= rest) break;
    }
  } else {
    std::sort(others.begin(), others.end(), is_before);
  }
  for (int64_t i = 0; i < count; ++i) {
    const Entry& e = others[static_cast<size_t>(i)];
    kept[e.head][e.query][e.block] = 1;
  }
}

at::Tensor select_by_sorting(const at::Tensor& gates, const std::vector<int32_t>& offsets, const GateRule& rule) {
  const int64_t heads = gates.size(0), blocks = gates.size(1), queries = gates.size(2);
  at::Tensor kept = at::zeros({heads, queries, blocks}, at::kByte);
  std::map<int64_t, std::vector<Entry>> others;
  std::map<int64_t, std::vector<float>> own;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t c = 0; c < blocks; ++c) {
      for (int64_t n = 0; n < queries; ++n) {
        const int64_t group = rule.pool == GatePool::kLocal    ? h * queries + n
                              : rule.pool == GatePool::kGlobal ? h
                              : rule.pool == GatePool::kBlock  ? c
                                                               : 0;
        const auto gate = gates[h][c][n].item<float>();
        if (n >= offsets[static_cast<size_t>(c)] && n < offsets[static_cast<size_t>(c) + 1]) {
          kept[h][n][c] = 1;
          own[group].push_back(gate);
        } else {
          others[group].push_back({gate, (c * heads + h) * queries + n, h, c, n});
        }
      }
    }
  }
  for (auto& [group, entries] : others) {
    const auto group_queries = static_cast<int64_t>(own[group].size());
    mark_sorted(entries, own[group], rule, (std::min(rule.topk, blocks) - 1) * group_queries, kept);
  }
  return kept;
}

at::Tensor select(const at::Tensor& gates, const std::vector<int32_t>& offsets, const GateRule& rule) {
  std::vector<int32_t> tokens(static_cast<size_t>(offsets.back()) + 1);
  std::iota(tokens.begin(), tokens.end(), 0);
  BlockLayout layout(gates.size(0), tokens, offsets);
  select_by_gates(gates, offsets, rule, 0, layout);
  layout.validate();
  return test::levels(layout);
}

TEST(GateSelection, equals_sorting_whatever_the_pool_and_the_ties) {
  const std::vector<int32_t> offsets = {0, 3, 4, 9, 14, 15, 21};
  const at::Tensor smooth = test::fill_input(7, {3, 6, 21});
  const at::Tensor inputs[] = {
      smooth,                                                        // all different
      (smooth * 2).round(),                                          // many ties, both zeros
      at::zeros({3, 6, 21}, at::kFloat),                             // all equal
      at::where(smooth > 1.5, smooth * 1e6, smooth * 1e-3),          // all but a few in one bin
      smooth.transpose(1, 2).contiguous().transpose(1, 2) + 100.0F,  // a small range far from zero
  };
  for (const at::Tensor& gates : inputs) {
    for (const GatePool pool : {GatePool::kLocal, GatePool::kGlobal, GatePool::kBlock, GatePool::kOverall}) {
      for (const double tau : {0.0, 0.1, 0.25, 0.6, 0.95}) {
        const GateRule rule{.pool = pool, .is_threshold = true, .tau = tau};
        EXPECT_TRUE(at::equal(select(gates, offsets, rule), select_by_sorting(gates, offsets, rule)))
            << "pool " << static_cast<int>(pool) << ", tau " << tau;
      }
      for (const int64_t topk : {1, 2, 4, 6, 9}) {
        if (pool == GatePool::kBlock) continue;
        const GateRule rule{.pool = pool, .topk = topk};
        EXPECT_TRUE(at::equal(select(gates, offsets, rule), select_by_sorting(gates, offsets, rule)))
            << "pool " << static_cast<int>(pool) << ", topk " << topk;
      }
    }
  }
}

TEST(GateSelection, thresholds_keep_no_more_than_the_share_asks_for) {
  const std::vector<int32_t> offsets = BlockLayout::uniform_offsets(96, 8);
  const at::Tensor gates = test::fill_input(3, {2, 12, 96});
  for (const double tau : {0.15, 0.25, 0.5}) {
    const at::Tensor kept = select(gates, offsets, {.pool = GatePool::kGlobal, .is_threshold = true, .tau = tau});
    const int64_t others = 11 * 96, most = static_cast<int64_t>(std::ceil(tau * static_cast<double>(others))) + 1;
    for (int64_t head = 0; head < 2; ++head) EXPECT_LE(kept[head].sum().item<int64_t>() - 96, most);
  }
}

TEST(Vmoba, topk_keeps_that_many_blocks) {
  const Inputs inputs = random_inputs({.frames = 5, .rows = 6, .cols = 7}, 3);
  const at::Tensor local = test::levels(*layout("partition=3d,chunk_3d=2/3/4,topk=5", inputs)).to(at::kLong);
  EXPECT_TRUE(at::equal(local.sum(2), at::full({3, 210}, 5, at::kLong)));
  const at::Tensor global =
      test::levels(*layout("partition=3d,chunk_3d=2/3/4,topk=5,pool=global", inputs)).to(at::kLong);
  EXPECT_TRUE(at::equal(global.sum({1, 2}), at::full({3}, 5 * 210, at::kLong)));
}

TEST(Vmoba, selection_grows_with_the_budget) {
  const Inputs inputs = random_inputs({.frames = 4, .rows = 6, .cols = 8}, 2);
  const auto is_within = [](const LayoutPtr& a, const LayoutPtr& b) { return BlockLayout::united(*a, *b) == *b; };
  const std::string boxes = "partition=3d,chunk_3d=2/3/4,";
  for (const char* pool : {"local", "global", "overall"}) {
    const std::string options = boxes + "pool=" + pool;
    EXPECT_TRUE(is_within(layout(options + ",topk=2", inputs), layout(options + ",topk=4", inputs))) << pool;
  }
  for (const char* pool : {"local", "global", "block", "overall"}) {
    const std::string options = boxes + "mode=threshold,pool=" + pool;
    EXPECT_TRUE(is_within(layout(options + ",tau=0.2", inputs), layout(options + ",tau=0.6", inputs))) << pool;
  }
}

TEST(Vmoba, selection_heeds_neither_scale_nor_the_other_heads) {
  const Inputs inputs = random_inputs({.frames = 4, .rows = 6, .cols = 8}, 3);
  Inputs scaled = inputs, turned = inputs, alone = inputs;
  scaled.q = inputs.q * 4;
  turned.q = inputs.q.flip(1);
  turned.k = inputs.k.flip(1);
  alone.q = inputs.q.narrow(1, 1, 1);
  alone.k = inputs.k.narrow(1, 1, 1);
  for (const char* rule : {"topk=3", "topk=3,pool=global", "mode=threshold", "mode=threshold,pool=local"}) {
    const std::string options = std::string("partition=2d,chunk_2d=2/2,") + rule;
    const at::Tensor kept = test::levels(*layout(options, inputs));
    EXPECT_TRUE(at::equal(kept, test::levels(*layout(options, scaled)))) << rule;
    EXPECT_TRUE(at::equal(kept.flip(0), test::levels(*layout(options, turned)))) << rule;
    EXPECT_TRUE(at::equal(kept.narrow(0, 1, 1), test::levels(*layout(options, alone)))) << rule;
  }
  EXPECT_EQ(*layout("partition=2d,chunk_2d=2/2,mode=threshold,pool=overall", alone),
            *layout("partition=2d,chunk_2d=2/2,mode=threshold,pool=global", alone));
}

TEST(Vmoba, takes_any_grid_and_bfloat16) {
  const Inputs ragged = random_inputs({.frames = 5, .rows = 7, .cols = 9}, 2);
  const LayoutPtr mask = layout("partition=3d,chunk_3d=2/3/4,topk=3", ragged);
  EXPECT_EQ(mask->key_blocks(), 3 * 3 * 3);
  EXPECT_EQ(mask->key_offsets().back(), 315);
  Inputs narrow = ragged;
  narrow.q = ragged.q.to(at::kBFloat16);
  narrow.k = ragged.k.to(at::kBFloat16);
  Inputs widened = narrow;
  widened.q = narrow.q.to(at::kFloat);
  widened.k = narrow.k.to(at::kFloat);
  EXPECT_EQ(*layout("partition=3d,chunk_3d=2/3/4,topk=3", narrow),
            *layout("partition=3d,chunk_3d=2/3/4,topk=3", widened));
}

TEST(Vmoba, text_is_not_gated_and_always_kept) {
  Inputs inputs = random_inputs({.frames = 4, .rows = 6, .cols = 8, .text_tokens = 5, .is_text_first = true}, 2);
  const std::string options = "partition=2d,chunk_2d=3/4,mode=threshold";
  const LayoutPtr mask = layout(options, inputs);
  EXPECT_EQ(order(options, inputs.grid).back(), 4);
  EXPECT_EQ(mask->key_blocks(), 5);
  EXPECT_EQ(mask->query_blocks(), 197);
  for (int64_t row = 0; row < 197; ++row) EXPECT_TRUE(mask->is_kept(1, row, 4)) << row;
  for (int64_t col = 0; col < 5; ++col) EXPECT_TRUE(mask->is_kept(1, 192, col) && mask->is_kept(1, 196, col));
  inputs.q.narrow(2, 192, 5).fill_(INFINITY);
  inputs.k.narrow(2, 192, 5).fill_(NAN);
  EXPECT_EQ(*layout(options, inputs), *mask);
}

TEST(Vmoba, is_dense_with_a_note_where_every_block_is_kept) {
  const Inputs inputs = random_inputs({.frames = 3, .rows = 2, .cols = 2}, 1);
  const AttentionPlan one_block = plan("partition=1d", inputs, false);
  EXPECT_EQ(one_block.layout, nullptr);
  EXPECT_FALSE(one_block.note.empty());
  EXPECT_TRUE(plan("partition=1d", inputs).layout->is_full());
  EXPECT_TRUE(plan("partition=1d,chunk_1d=1,topk=3", inputs).layout->is_full());
  EXPECT_FALSE(plan("partition=1d,chunk_1d=1,topk=2", inputs).layout->is_full());
}

TEST(Vmoba, refuses_numbers_that_are_not) {
  for (const double bad : {double{NAN}, double{INFINITY}}) {
    Inputs inputs = random_inputs({.frames = 4, .rows = 2, .cols = 2}, 2);
    inputs.q[0][1][3][0] = bad;
    EXPECT_THAT([&] { layout("partition=1d,chunk_1d=1,topk=2", inputs); },
                ThrowsMessage<ShapeError>(HasSubstr("q or k holds inf or nan")));
  }
}

TEST(Vmoba, refuses_wrong_options) {
  const auto refusal = [](const std::string& options, const std::string& text) {
    EXPECT_THAT([&] { make_pattern("vmoba", parse_option_text(options, "")); },
                ThrowsMessage<ConfigError>(HasSubstr(text)))
        << options;
  };
  refusal("pool=block", "vmoba: pool: block: only with mode=threshold");
  refusal("topk=3/6", "vmoba: topk: expected 1 or 3 numbers, found 2");
  refusal("topk=0", "topk");
  refusal("tau=1.5", "tau");
  refusal("chunk_2d=5", "chunk_2d");
  refusal("chunk_1d=0", "chunk_1d");
  refusal("partition=4d", "partition");
  refusal("block_size=64", "block_size: rows are single tokens");
}

TEST(Vmoba, presets_and_defaults_are_those_of_the_paper) {
  EXPECT_THAT(make_rule(ConfigNode::string("vmoba")).options, HasSubstr("mode=topk,pool=local,topk=3/6/18"));
  EXPECT_THAT(make_rule(ConfigNode::string("vmoba:mode=threshold")).options, HasSubstr("pool=global"));
  EXPECT_EQ(make_rule(ConfigNode::string("vmoba")).dense_steps_of(50), 12);
  EXPECT_EQ(make_rule(ConfigNode::string("vmoba:preset=tuned_93f_576p")).dense_steps_of(50), 0);
  for (const PatternPreset& preset : pattern_info("vmoba").presets) {
    EXPECT_NO_THROW(make_rule(ConfigNode::string("vmoba:preset=" + preset.name))) << preset.name;
  }
}

}  // namespace
}  // namespace strobe::attention
