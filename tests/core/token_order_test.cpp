#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/token_order.h"

namespace strobe {
namespace {

using ::testing::ElementsAre;

// psa.md section 2.1.
int64_t checksum(const TokenOrder& order) {
  int64_t sum = 0;
  for (int64_t p = 0; p < order.size(); ++p) {
    sum = (sum + (p + 1) * order.raster()[static_cast<size_t>(p)]) % 1'000'000'007;
  }
  return sum;
}

int64_t jumps(const TokenGrid& grid, const TokenOrder& order) {
  int64_t jumps = 0;
  for (size_t p = 1; p < order.raster().size(); ++p) {
    const int64_t a = order.raster()[p - 1], b = order.raster()[p], plane = grid.rows * grid.cols;
    const int64_t distance = std::abs(a / plane - b / plane) + std::abs(a % plane / grid.cols - b % plane / grid.cols) +
                             std::abs(a % grid.cols - b % grid.cols);
    jumps += distance == 1 ? 0 : 1;
  }
  return jumps;
}

struct Curve {
  int64_t cols, rows, frames, checksum, jumps;
};
void PrintTo(const Curve& c, std::ostream* out) { *out << c.cols << "x" << c.rows << "x" << c.frames; }

class Gilbert : public ::testing::TestWithParam<Curve> {};

TEST_P(Gilbert, walks_the_published_curve) {
  const Curve& c = GetParam();
  const TokenGrid grid{.frames = c.frames, .rows = c.rows, .cols = c.cols};
  const auto order = gilbert_order(grid);
  EXPECT_EQ(checksum(*order), c.checksum);
  if (c.jumps >= 0) {
    EXPECT_EQ(jumps(grid, *order), c.jumps);
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, Gilbert,
                         ::testing::Values(Curve{2, 2, 2, 134, 0}, Curve{3, 2, 2, 490, 1}, Curve{4, 2, 2, 1100, 0},
                                           Curve{5, 3, 2, 7228, 1}, Curve{80, 45, 18, 344924112, 96},
                                           Curve{80, 45, 21, 365371174, 360}, Curve{52, 30, 21, 349509230, 76},
                                           Curve{40, 22, 31, 597197633, 56}, Curve{80, 48, 18, 948157315, 0},
                                           Curve{45, 30, 13, 859055680, 151}, Curve{85, 48, 11, 44392282, 395},
                                           Curve{80, 45, 33, 541251790, 528}, Curve{45, 80, 21, 867601042, 360},
                                           Curve{80, 45, 1, 747390787, 0}));

TEST(GilbertOrder, is_a_permutation_of_every_small_grid) {
  for (int64_t f = 1; f <= 10; ++f) {
    for (int64_t r = 1; r <= 10; ++r) {
      // TokenOrder refuses anything else.
      for (int64_t c = 1; c <= 10; ++c) EXPECT_EQ(gilbert_order({f, r, c})->size(), f * r * c);
    }
  }
}

TEST(TokenOrder, puts_the_text_last) {
  const auto order = gilbert_order({.frames = 1, .rows = 1, .cols = 3, .text_tokens = 2, .is_text_first = true});
  EXPECT_THAT(order->raster(), ElementsAre(2, 3, 4, 0, 1));
  EXPECT_THAT(order->positions(), ElementsAre(3, 4, 0, 1, 2));
}

// vmoba.md section 14.
TEST(TileOrder, goes_box_by_box) {
  const TokenGrid grid{.frames = 2, .rows = 2, .cols = 4};
  EXPECT_TRUE(tile_order(grid, 1, 2, 4).order->is_identity());
  const TiledOrder windows = tile_order(grid, 2, 1, 2);
  EXPECT_THAT(windows.order->raster(), ElementsAre(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  EXPECT_THAT(windows.offsets, ElementsAre(0, 4, 8, 12, 16));
  EXPECT_THAT(tile_order(grid, 2, 2, 2).order->raster(),
              ElementsAre(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  EXPECT_THAT(tile_order(grid, 1, 2, 2).order->raster(),
              ElementsAre(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
}

TEST(TileOrder, has_smaller_boxes_at_the_far_borders) {
  const TiledOrder boxes = tile_order({.frames = 3, .rows = 2, .cols = 3, .text_tokens = 1}, 2, 2, 2);
  EXPECT_THAT(boxes.offsets, ElementsAre(0, 8, 12, 16, 18));
  EXPECT_EQ(boxes.order->raster().back(), 18);
  EXPECT_THROW(tile_order({3, 2, 3}, 0, 1, 1), ConfigError);
}

TEST(RunOrder, cuts_raster_order) {
  EXPECT_THAT(run_order({.frames = 1, .rows = 1, .cols = 7}, 3).offsets, ElementsAre(0, 3, 6, 7));
}

TEST(TokenOrder, refuses_lists_that_are_no_permutation) {
  EXPECT_THROW(TokenOrder({0, 0, 1}), ShapeError);
  EXPECT_THROW(TokenOrder({0, 3, 1}), ShapeError);
}

}  // namespace
}  // namespace strobe
