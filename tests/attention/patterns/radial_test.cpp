#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "attention/pattern.h"
#include "attention/schedule.h"
#include "attention/torch_scorer.h"
#include "core/error.h"
#include "tests/support/compare.h"
#include "tests/support/levels.h"
#include "weights/safetensors.h"

namespace strobe::attention {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

AttentionPlan plan(const std::string& options, const TokenGrid& grid, bool plans_always = true) {
  const auto pattern = make_pattern("radial", parse_option_text(options, "radial"));
  const AttentionSite site{.grid = grid, .plans_always = plans_always};
  const TorchScorer scorer;
  PatternState state;
  const at::Tensor none;
  return pattern->plan({.site = site, .q = none, .k = none, .key_bias = none, .scorer = scorer, .state = state});
}

LayoutPtr layout(const std::string& options, const TokenGrid& grid) { return plan(options, grid).layout; }

TokenGrid video(int64_t frames, int64_t frame_tokens, int64_t text = 0) {
  return {.frames = frames, .rows = frame_tokens, .cols = 1, .text_tokens = text};
}

std::vector<std::string> rows_of(const BlockLayout& layout) {
  std::vector<std::string> rows;
  for (int64_t row = 0; row < layout.query_blocks(); ++row) {
    std::string& text = rows.emplace_back();
    for (int64_t col = 0; col < layout.key_blocks(); ++col) text += layout.is_kept(0, row, col) ? '1' : '0';
  }
  return rows;
}

struct GoldenMask {
  int64_t frames, frame_tokens, text, block_size;
  double decay_factor;
  int64_t sink_frames;
  const char* neighbour;
  int64_t parity_blocks;
  uint32_t parity_crc;
  int64_t robust_blocks;  // video only
  uint32_t robust_crc;
};

// Made by the public code (parity) and by an independent program (robust); tests/goldens/patterns/README.md.
constexpr GoldenMask kGoldenMasks[] = {
    {8, 256, 0, 64, 0.2, 1, "full", 748, 0xcc4b06f7, 748, 0xcc4b06f7},
    {6, 192, 64, 64, 0.95, 0, "full", 265, 0x5fb55e8a, 228, 0x20683dce},
    {7, 300, 0, 64, 0.5, 1, "full", 791, 0xf0aad615, 820, 0x47444fe3},
    {12, 100, 0, 64, 1.0, 1, "full", 105, 0x57457a6b, 144, 0xce38302c},
    {16, 48, 0, 64, 1.0, 0, "full", 12, 0x9f8a25e2, 42, 0x0c602a0a},
    {31, 880, 0, 128, 0.2, 1, "full", 13710, 0xfe3c44b9, 14863, 0x267be984},
    {21, 1560, 0, 128, 0.2, 1, "full", 22534, 0x1f2a4471, 22624, 0x497cd36e},
    {21, 1560, 0, 128, 0.2, 0, "full", 20049, 0x6126c95c, 20152, 0x6ea73cdb},
    {21, 1560, 0, 128, 1.0, 1, "full", 29442, 0xbd7e0193, 29715, 0x0f2e7342},
    {41, 1560, 0, 128, 1.0, 1, "full", 74721, 0x38240afc, 75876, 0xf93b5761},
    {81, 1560, 0, 128, 1.0, 1, "full", 182836, 0xdf3131f0, 186419, 0x5cc1bcc5},
    {21, 3600, 0, 128, 0.2, 1, "full", 92445, 0x8534a060, 91971, 0x7a3cdc60},
    {32, 3600, 0, 128, 0.95, 0, "full", 222984, 0x14df4fed, 224742, 0x5833379f},
    {41, 3600, 0, 128, 1.0, 1, "full", 347853, 0x20a9245f, 348554, 0x8517d63d},
    {81, 3600, 0, 128, 1.0, 1, "full", 846757, 0xd9aff9a1, 850109, 0x912ca16a},
    {18, 3840, 0, 128, 0.2, 1, "full", 83728, 0xaa1aa3f2, 83728, 0xaa1aa3f2},
    {18, 3840, 0, 128, 0.2, 1, "half", 76798, 0x67ee69f2, 76798, 0x67ee69f2},
    {18, 3840, 0, 128, 1.0, 1, "full", 125656, 0x0b8c85fa, 125656, 0x0b8c85fa},
    {20, 3840, 0, 64, 0.8, 1, "full", 502720, 0xa0803e16, 502720, 0xa0803e16},
    {30, 3840, 256, 128, 0.95, 0, "full", 226056, 0xcdad8c3c, 222452, 0xfc1c6c4a},
    {59, 3840, 256, 128, 1.0, 1, "full", 660108, 0x41ba469e, 653024, 0x28092cf5},
    {117, 3840, 256, 128, 1.0, 1, "full", 1618188, 0x701f1cf4, 1604144, 0x376e54ca},
};

TEST(Radial, masks_are_those_of_the_public_code_bit_for_bit) {
  for (const GoldenMask& golden : kGoldenMasks) {
    const std::string options =
        fmt::format("block_size={},decay_factor={},sink_frames={},neighbour={}", golden.block_size, golden.decay_factor,
                    golden.sink_frames, golden.neighbour);
    SCOPED_TRACE(fmt::format("{} x {}, {}", golden.frames, golden.frame_tokens, options));
    const LayoutPtr parity = layout(options + ",mode=parity", video(golden.frames, golden.frame_tokens, golden.text));
    EXPECT_EQ(parity->kept_blocks(), golden.parity_blocks);
    EXPECT_EQ(test::crc32(test::levels(*parity)), golden.parity_crc);
    const LayoutPtr robust = layout(options, video(golden.frames, golden.frame_tokens));
    EXPECT_EQ(robust->kept_blocks(), golden.robust_blocks);
    EXPECT_EQ(test::crc32(test::levels(*robust)), golden.robust_crc);
  }
}

TEST(Radial, worked_examples) {
  const auto crc = [](const std::string& options, const TokenGrid& grid) {
    return test::crc32(test::levels(*layout(options, grid)));
  };
  const std::string two = "block_size=2,decimation=2,decay_factor=0.5,sink_frames=";
  EXPECT_EQ(crc(two + "0", video(3, 8)), 0x61825e25U);
  EXPECT_EQ(crc(two + "1,neighbour=half", video(3, 8)), 0xaa8022d5U);
  EXPECT_EQ(crc("block_size=4,decimation=8", video(3, 8)), 0x59137a2cU);
  EXPECT_EQ(crc("block_size=4,decimation=16,sink_frames=0,mode=parity", video(3, 8)), 0xf49fec7eU);
  EXPECT_TRUE(layout("block_size=4,decimation=16,sink_frames=0", video(3, 8))->is_kept(0, 0, 2));
  const std::string four = "block_size=4,decimation=4,decay_factor=0.5,sink_frames=";
  EXPECT_EQ(crc(four + "1", video(6, 16)), 0x30d40a0dU);
  EXPECT_EQ(crc(four + "0", video(6, 16)), 0x2b5d8c49U);
  EXPECT_EQ(crc("block_size=4,decimation=4,sink_frames=0", video(8, 8)), 0x690fa9abU);
  EXPECT_EQ(crc(four + "0,mode=parity", video(4, 7)), 0xa315f6c4U);
  EXPECT_EQ(crc(four + "0", video(4, 7)), 0x4f3be7f3U);
  EXPECT_THAT(rows_of(*layout(four + "0,mode=parity", video(4, 7))),
              ::testing::ElementsAre("1111100", "1110100", "1111111", "1111111", "1111111", "0111111", "0111111"));
  const std::string eight = "block_size=8,decimation=8,sink_frames=0";
  EXPECT_EQ(crc(eight + ",mode=parity", video(8, 7)), 0xa96ec08dU);
  EXPECT_EQ(crc(eight, video(8, 7)), 0x07bfa0e3U);
}

TEST(Radial, parity_mode_may_leave_rows_empty_and_robust_mode_never_does) {
  const std::string options = "block_size=8,decimation=8,sink_frames=0";
  EXPECT_THAT([&] { layout(options + ",mode=parity", video(8, 7))->validate(); },
              ThrowsMessage<ShapeError>(HasSubstr("row 1 keeps no key block")));
  EXPECT_NO_THROW(layout(options, video(8, 7))->validate());
  const LayoutPtr ovi = layout("decay_factor=1,sink_frames=0,mode=parity", video(31, 484));
  for (const int64_t row : {22, 56, 90}) {
    for (int64_t col = 0; col < 117; ++col) EXPECT_FALSE(ovi->is_kept(0, row, col)) << row << ", " << col;
  }
  EXPECT_NO_THROW(layout("decay_factor=1,sink_frames=0", video(31, 484))->validate());
}

TEST(Radial, densities_are_those_of_the_paper) {
  const auto dropped = [](const TokenGrid& grid, const std::string& options) {
    const LayoutPtr mask = layout("mode=parity,sink_frames=1" + options, grid);
    const auto blocks = static_cast<double>(mask->key_blocks());
    return 1 - static_cast<double>(mask->kept_blocks()) / (blocks * blocks);
  };
  EXPECT_NEAR(dropped(video(64, 3600), ""), 0.8083, 5e-5);
  EXPECT_NEAR(dropped(video(128, 3600), ""), 0.8837, 5e-5);
  EXPECT_NEAR(dropped(video(56, 1590), ""), 0.7641, 5e-5);
  EXPECT_NEAR(dropped(video(112, 1590), ""), 0.8559, 5e-5);
  EXPECT_NEAR(dropped(video(41, 3840), ""), 0.7361, 5e-5);
  const std::pair<double, double> wan_768p[] = {{0.2, 0.7129}, {0.228, 0.7129}, {0.3, 0.7013}, {0.5, 0.6611},
                                                {0.8, 0.6232}, {0.95, 0.5953},  {1.0, 0.5691}};
  for (const auto& [decay, expected] : wan_768p) {
    EXPECT_NEAR(dropped(video(18, 3840), fmt::format(",decay_factor={}", decay)), expected, 5e-5) << decay;
  }
}

// The rule of the specification, token by token.
bool is_block_kept_by_counting(int64_t frame_tokens, int64_t width, int64_t first_row, int64_t first_col, int64_t block,
                               bool is_parity) {
  int64_t touched = 0, well = 0, height = 0;
  for (int64_t k = std::max<int64_t>(0, first_row); k < std::min(frame_tokens, first_row + block); ++k) ++height;
  for (int64_t l = std::max<int64_t>(0, first_col); l < std::min(frame_tokens, first_col + block); ++l) {
    int64_t count = 0;
    for (int64_t k = std::max<int64_t>(0, first_row); k < std::min(frame_tokens, first_row + block); ++k) {
      if (std::abs(k - l) <= width) ++count;
    }
    if (count >= 1) ++touched;
    if (3 * count > (is_parity ? block : height)) ++well;
  }
  return 5 * well > 3 * touched;
}

int64_t width_by_definition(int64_t frame_tokens, int64_t distance, int64_t block, double decay) {
  if (distance <= 1) return frame_tokens;
  const double un = std::exp2(std::bit_width(static_cast<uint64_t>(frame_tokens))) /
                    std::exp2(std::bit_width(static_cast<uint64_t>(distance)));
  return static_cast<int64_t>(std::floor(std::max(static_cast<double>(block), decay * un)));
}

TEST(Radial, closed_forms_agree_with_counting_tokens) {
  struct Case {
    int64_t frames, frame_tokens, block;
    double decay;
  };
  for (const Case c : {Case{5, 37, 4, 0.6}, Case{7, 23, 8, 1}, Case{4, 50, 6, 2.5}, Case{9, 16, 5, 0.3}}) {
    for (const bool is_parity : {false, true}) {
      const LayoutPtr mask = layout(fmt::format("block_size={},decay_factor={},decimation=1,sink_frames=0,mode={}",
                                                c.block, c.decay, is_parity ? "parity" : "robust"),
                                    video(c.frames, c.frame_tokens));
      const int64_t blocks = c.frames * c.frame_tokens / c.block, per_frame = (c.frame_tokens + c.block - 1) / c.block;
      for (int64_t a = 0; a < blocks; ++a) {
        for (int64_t b = 0; b < blocks; ++b) {
          bool is_kept = !is_parity && a == b;
          for (int64_t i = 0; i < c.frames; ++i) {
            for (int64_t j = 0; j < c.frames; ++j) {
              const int64_t row = a * c.block - i * c.frame_tokens, col = b * c.block - j * c.frame_tokens;
              const int64_t a_in_frame = a - i * c.frame_tokens / c.block,
                            b_in_frame = b - j * c.frame_tokens / c.block;
              if (is_parity &&
                  (a_in_frame < 0 || a_in_frame >= per_frame || b_in_frame < 0 || b_in_frame >= per_frame)) {
                continue;
              }
              const int64_t width = width_by_definition(c.frame_tokens, std::abs(i - j), c.block, c.decay);
              is_kept = is_kept || is_block_kept_by_counting(c.frame_tokens, width, row, col, c.block, is_parity);
            }
          }
          ASSERT_EQ(mask->is_kept(0, a, b), is_kept)
              << c.frames << " x " << c.frame_tokens << ", parity " << is_parity << ": " << a << ", " << b;
        }
      }
    }
  }
}

TEST(Radial, robust_mode_keeps_own_and_neighbouring_frames_and_the_sink) {
  for (const int64_t frame_tokens : {5, 33, 100, 129}) {
    const TokenGrid grid = video(9, frame_tokens);
    const LayoutPtr mask = layout("block_size=16,decimation=128,decay_factor=0.2", grid);
    for (int64_t q = 0; q < grid.tokens(); ++q) {
      for (int64_t k = 0; k < grid.tokens(); ++k) {
        const int64_t frame = k / frame_tokens;
        if (frame == 0 || std::abs(q / frame_tokens - frame) <= 1) {
          ASSERT_TRUE(mask->is_kept(0, q / 16, k / 16)) << frame_tokens << ": " << q << ", " << k;
        }
      }
    }
  }
}

TEST(Radial, masks_grow_with_the_factor_the_neighbours_and_the_sink) {
  const auto is_within = [](const LayoutPtr& a, const LayoutPtr& b) { return BlockLayout::united(*a, *b) == *b; };
  const TokenGrid grid = video(12, 200);
  const std::string block = "block_size=16,decimation=16,";
  EXPECT_TRUE(is_within(layout(block + "decay_factor=0.3", grid), layout(block + "decay_factor=0.9", grid)));
  EXPECT_TRUE(is_within(layout(block + "neighbour=half", grid), layout(block + "neighbour=full", grid)));
  EXPECT_TRUE(is_within(layout(block + "sink_frames=0", grid), layout(block + "sink_frames=1", grid)));
  EXPECT_FALSE(is_within(layout(block + "sink_frames=1", grid), layout(block + "sink_frames=0", grid)));
}

TEST(Radial, text_has_blocks_of_its_own_and_is_always_kept) {
  const TokenGrid grid{.frames = 8, .rows = 4, .cols = 7, .text_tokens = 11, .is_text_first = true};
  const auto pattern = make_pattern("radial", parse_option_text("block_size=8,decimation=8", ""));
  const PatternOrders orders = pattern->order({.grid = grid});
  ASSERT_NE(orders.q, nullptr);
  EXPECT_EQ(orders.q->raster()[0], 11);
  EXPECT_EQ(orders.q->raster().back(), 10);
  TokenGrid text_last = grid;
  text_last.is_text_first = false;
  EXPECT_EQ(pattern->order({.grid = text_last}).q, nullptr);
  const LayoutPtr mask = layout("block_size=8,decimation=8", grid);
  EXPECT_EQ(mask->query_offsets(), mask->key_offsets());
  EXPECT_THAT(std::vector<int32_t>(mask->key_offsets().end() - 3, mask->key_offsets().end()),
              ::testing::ElementsAre(224, 232, 235));
  for (int64_t block = 0; block < mask->key_blocks(); ++block) {
    for (const int64_t text : {28, 29}) {
      EXPECT_TRUE(mask->is_kept(0, block, text) && mask->is_kept(0, text, block));
    }
  }
}

TEST(Radial, golden_files_hold_for_maps_and_attention) {
  const auto check = [](const std::string& name, const std::string& options, const TokenGrid& grid) {
    SCOPED_TRACE(name);
    const auto file = weights::open_safetensors(test::golden_path("patterns/" + name + ".safetensors"));
    const LayoutPtr mask = layout(options + ",mode=parity", grid);
    EXPECT_TRUE(at::equal(test::levels(*mask), file->read("level")));
    const LayoutPtr robust = layout(options, grid);
    const int64_t blocks = file->read("level_robust").size(1);
    EXPECT_TRUE(at::equal(test::levels(*robust).narrow(1, 0, blocks).narrow(2, 0, blocks), file->read("level_robust")));
    const at::Tensor out =
        test::masked_attention(*mask, file->read("q"), file->read("k"), file->read("v")).to(at::kFloat);
    EXPECT_TRUE(test::matches(out, file->read("out")));
  };
  check("radial_A02_small_hunyuan_text_qkv", "block_size=64,decay_factor=0.95,sink_frames=0", video(6, 192, 64));
  check("radial_A03_small_wan_ragged_qkv", "block_size=64,decay_factor=0.5", video(7, 300));
}

TEST(Radial, is_dense_with_a_note_where_every_block_is_kept) {
  const AttentionPlan one_frame = plan("", video(1, 300), false);
  EXPECT_EQ(one_frame.layout, nullptr);
  EXPECT_FALSE(one_frame.note.empty());
  EXPECT_TRUE(plan("", video(1, 300)).layout->is_full());
  EXPECT_TRUE(plan("sink_frames=9", video(9, 300)).layout->is_full());
  EXPECT_NE(plan("block_size=16,decimation=16", video(9, 300), false).layout, nullptr);
}

TEST(Radial, refuses_wrong_options) {
  const auto refusal = [](const std::string& options, const std::string& text) {
    EXPECT_THAT([&] { make_pattern("radial", parse_option_text(options, "")); },
                ThrowsMessage<ConfigError>(HasSubstr(text)))
        << options;
  };
  refusal("query_block=64", "radial: query_block: expected block_size, which is 128, found 64");
  refusal("neighbour=none", "neighbour");
  refusal("mode=exact", "mode");
  refusal("decay_factor=-1", "decay_factor");
  refusal("decimation=0", "decimation");
  refusal("decay_facto=1", "did you mean 'decay_factor'?");
  refusal("preset=wan_14", "did you mean 'wan_14b'?");
  EXPECT_NO_THROW(make_pattern("radial", parse_option_text("block_size=64,query_block=64", "")));
}

TEST(Radial, presets_are_those_of_the_public_scripts) {
  const AttentionRule wan = make_rule(ConfigNode::string("radial:preset=wan_14b"));
  EXPECT_THAT(wan.options, HasSubstr("decay_factor=0.2"));
  EXPECT_EQ(wan.dense_steps_of(50), 12);
  EXPECT_EQ(wan.dense_steps_of(8), 2);
  EXPECT_EQ(wan.dense_steps_of(4), 1);
  EXPECT_EQ(wan.dense_layers, 1);
  const AttentionRule wan22 = make_rule(ConfigNode::string("radial:preset=wan22_a14b"));
  EXPECT_THAT(wan22.options, HasSubstr("block_size=64"));
  EXPECT_EQ(wan22.dense_steps_of(40), 11);
  for (const PatternPreset& preset : pattern_info("radial").presets) {
    EXPECT_NO_THROW(make_rule(ConfigNode::string("radial:preset=" + preset.name))) << preset.name;
  }
}

}  // namespace
}  // namespace strobe::attention
