#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attention/pattern.h"
#include "attention/torch_scorer.h"
#include "core/error.h"

namespace strobe::attention {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

LayoutPtr layout(const std::string& options, const TokenGrid& grid) {
  const auto pattern = make_pattern("window", parse_option_text(options, "window"));
  const AttentionSite site{.grid = grid, .plans_always = true};
  const TorchScorer scorer;
  PatternState state;
  const at::Tensor none;
  return pattern->plan({.site = site, .q = none, .k = none, .key_bias = none, .scorer = scorer, .state = state}).layout;
}

bool is_inside(const TokenGrid& grid, const std::array<int64_t, 3>& window, int64_t q, int64_t k) {
  const int64_t frame_tokens = grid.rows * grid.cols;
  return std::abs(q / frame_tokens - k / frame_tokens) <= window[0] &&
         std::abs(q % frame_tokens / grid.cols - k % frame_tokens / grid.cols) <= window[1] &&
         std::abs(q % grid.cols - k % grid.cols) <= window[2];
}

TEST(Window, keeps_exactly_the_blocks_that_hold_a_pair_inside) {
  struct Case {
    TokenGrid grid;
    std::array<int64_t, 3> window;
    int64_t block;
  };
  const Case cases[] = {
      {{.frames = 4, .rows = 5, .cols = 7}, {1, 1, 1}, 4},  {{.frames = 4, .rows = 5, .cols = 7}, {0, 0, 0}, 5},
      {{.frames = 5, .rows = 3, .cols = 2}, {1, 0, 0}, 16}, {{.frames = 3, .rows = 4, .cols = 9}, {9, 1, 2}, 8},
      {{.frames = 3, .rows = 4, .cols = 5}, {0, 1, 9}, 6},  {{.frames = 6, .rows = 2, .cols = 3}, {1, 9, 9}, 7},
      {{.frames = 1, .rows = 1, .cols = 3}, {0, 0, 0}, 64}, {{.frames = 7, .rows = 1, .cols = 1}, {2, 0, 0}, 2},
  };
  for (const Case& c : cases) {
    const std::string options =
        fmt::format("window={}/{}/{},block_size={}", c.window[0], c.window[1], c.window[2], c.block);
    SCOPED_TRACE(fmt::format("{}x{}x{}, {}", c.grid.frames, c.grid.rows, c.grid.cols, options));
    const LayoutPtr mask = layout(options, c.grid);
    BlockLayout expected(1, mask->query_offsets(), mask->key_offsets());
    for (int64_t q = 0; q < c.grid.tokens(); ++q) {
      for (int64_t k = 0; k < c.grid.tokens(); ++k) {
        if (is_inside(c.grid, c.window, q, k)) expected.set(0, q / c.block, k / c.block);
      }
    }
    EXPECT_EQ(*mask, expected);
  }
}

TEST(Window, text_has_blocks_of_its_own_and_is_always_kept) {
  const TokenGrid grid{.frames = 3, .rows = 4, .cols = 5, .text_tokens = 9, .is_text_first = true};
  const LayoutPtr mask = layout("window=0/0/0,block_size=8", grid);
  EXPECT_EQ(mask->key_blocks(), 10);
  EXPECT_THAT(std::vector<int32_t>(mask->key_offsets().end() - 3, mask->key_offsets().end()),
              ::testing::ElementsAre(60, 68, 69));
  for (int64_t block = 0; block < mask->key_blocks(); ++block) {
    for (const int64_t text : {8, 9}) EXPECT_TRUE(mask->is_kept(0, block, text) && mask->is_kept(0, text, block));
  }
  EXPECT_FALSE(mask->is_kept(0, 0, 7));
}

TEST(Window, refuses_wrong_options) {
  const auto refusal = [](const std::string& options, const std::string& text) {
    EXPECT_THAT([&] { make_pattern("window", parse_option_text(options, "")); },
                ThrowsMessage<ConfigError>(HasSubstr(text)))
        << options;
  };
  refusal("window=3", "window: expected 3 integers");
  refusal("window=3/-1/2", "window");
  refusal("block_size=0", "block_size");
  refusal("query_block=128", "query_block: expected block_size, which is 64, found 128");
}

}  // namespace
}  // namespace strobe::attention
