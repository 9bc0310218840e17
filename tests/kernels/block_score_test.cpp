// Every kernel of block scores but the reference by forced name against float64, on the cases of kernels/block_score/cases.h.
#include "kernels/block_score/block_score.h"

#include <gtest/gtest.h>

#include "kernels/block_score/cases.h"
#include "kernels/common/parallel.h"

namespace strobe::kernels {
namespace {

class BlockScoreKernels : public testing::TestWithParam<size_t> {};

TEST_P(BlockScoreKernels, agree_with_float64_on_every_case) {
  const BlockScoreKernel& kernel = block_score_kernels()[GetParam()];
  ThreadPool pool(2);
  std::string reason;
  for (const ScoreCase& c : score_cases()) {
    const ScoreResult result = run_score_case(kernel, c, pool.parallel());
    EXPECT_EQ(result.failure, "") << kernel.name << " on " << c.name;
    reason = result.skipped;
  }
  if (!reason.empty()) GTEST_SKIP() << kernel.name << ": " << reason;
}

INSTANTIATE_TEST_SUITE_P(All, BlockScoreKernels, testing::Range<size_t>(0, block_score_kernels().size() - 1),
                         [](const auto& kernel) { return block_score_kernels()[kernel.param].name; });

TEST(BlockScoreList, ends_with_the_reference_that_refuses_nothing) {
  EXPECT_STREQ(block_score_kernels().back().name, "block_score_reference");
  EXPECT_EQ(block_score_kernels().back().refusal(ScalarType::kBFloat16, 1000), "");
}

}  // namespace
}  // namespace strobe::kernels
