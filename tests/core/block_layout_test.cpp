#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/block_layout.h"
#include "core/error.h"

namespace strobe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(BlockLayout, keeps_pairs_at_one_level) {
  BlockLayout layout(2, {0, 3, 5}, BlockLayout::uniform_offsets(130 * 4, 4));
  layout.set(1, 0, 129);
  layout.set(1, 1, 64, 4);
  layout.set(1, 1, 64, 2);
  layout.set_row(0, 0);
  layout.set(0, 1, 3, 8);
  EXPECT_EQ(layout.factor(1, 0, 129), 1);
  EXPECT_EQ(layout.factor(1, 1, 64), 2);
  EXPECT_EQ(layout.factor(0, 0, 77), 1);
  EXPECT_EQ(layout.factor(0, 1, 2), 0);
  EXPECT_NO_THROW(layout.validate());
  layout.set(1, 1, 64, 0);
  EXPECT_THAT([&] { layout.validate(); }, ThrowsMessage<ShapeError>(HasSubstr("head 1, row 1 keeps no key block")));
  EXPECT_NO_THROW(layout.validate(true));
}

TEST(BlockLayout, density_counts_tokens_and_pooled_keys_by_their_factor) {
  BlockLayout layout(1, {0, 3, 5}, {0, 8, 10});
  layout.set(0, 0, 0);
  layout.set(0, 1, 0, 4);
  layout.set(0, 1, 1);
  EXPECT_DOUBLE_EQ(layout.density(), (3 * 8 + 2 * (2 + 2)) / 50.0);
  EXPECT_EQ(layout.kept_blocks(), 3);
  EXPECT_TRUE(layout.has_pooled_pairs());
}

TEST(BlockLayout, full_keeps_everything) {
  const BlockLayout layout =
      BlockLayout::full(BlockLayout::uniform_offsets(100, 64), BlockLayout::uniform_offsets(700, 9));
  EXPECT_TRUE(layout.is_full());
  EXPECT_DOUBLE_EQ(layout.density(), 1);
  EXPECT_NO_THROW(layout.validate());
}

TEST(BlockLayout, gives_rows_in_compressed_form) {
  BlockLayout layout(2, {0, 1, 2}, {0, 1, 2, 3});
  layout.set(0, 0, 2);
  layout.set(0, 0, 0, 2);
  layout.set(1, 1, 1);
  const BlockLayout::Csr csr = layout.csr();
  EXPECT_THAT(csr.row_ptr, ElementsAre(0, 2, 2, 0, 0, 1));
  EXPECT_THAT(csr.col, ElementsAre(0, 2, 1));
  EXPECT_THAT(csr.factor, ElementsAre(2, 1, 1));
}

TEST(BlockLayout, transposes_and_unites) {
  BlockLayout a(1, {0, 4, 8}, {0, 2, 4, 8}), b(2, {0, 4, 8}, {0, 2, 4, 8});
  a.set(0, 0, 1, 4);
  a.set(0, 1, 2);
  b.set(1, 0, 1, 2);
  const BlockLayout both = BlockLayout::united(a, b);
  EXPECT_EQ(both.factor(0, 0, 1), 4);
  EXPECT_EQ(both.factor(1, 0, 1), 2);
  EXPECT_EQ(both.factor(1, 1, 2), 1);
  const BlockLayout back = both.transposed();
  EXPECT_EQ(back.factor(1, 1, 0), 2);
  EXPECT_EQ(back.query_blocks(), 3);
  EXPECT_THROW(BlockLayout::united(a, BlockLayout(1, {0, 8}, {0, 8})), ShapeError);
}

TEST(BlockLayout, refuses_blocks_that_are_empty) {
  EXPECT_THROW(BlockLayout(1, {0, 4, 4}, {0, 4}), ShapeError);
  EXPECT_THROW(BlockLayout(1, {1, 4}, {0, 4}), ShapeError);
  EXPECT_THAT(BlockLayout::uniform_offsets(130, 64), ElementsAre(0, 64, 128, 130));
}

}  // namespace
}  // namespace strobe
