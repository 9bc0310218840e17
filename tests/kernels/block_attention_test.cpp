// Every kernel of block attention by forced name against float64, on the cases of kernels/block_attention/cases.h.
#include "kernels/block_attention/block_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/block_attention/cases.h"
#include "kernels/block_attention/reference.h"
#include "kernels/block_attention/work_plan.h"
#include "kernels/common/machine.h"
#include "kernels/common/parallel.h"

namespace strobe::kernels {
namespace {

// Smaller than strobe_kernel_check's, which runs everything: tests have some seconds.
constexpr double kBudget = 2e6;
constexpr int32_t kLargest = 1500;  // tokens of a case

ThreadPool& pool() {
  static ThreadPool instance(2);
  return instance;
}

bool runs_here(const BlockAttentionKernel& kernel, ScalarType dtype) {
  BlockAttentionParams params;
  params.dtype = dtype;
  params.head_dim = 64;
  return kernel.refusal(params).empty();
}

bool is_reference(const BlockAttentionKernel& kernel) {
  return std::strcmp(kernel.name, "block_attention_reference") == 0;
}

class BlockAttentionKernels : public testing::TestWithParam<size_t> {
 protected:
  const BlockAttentionKernel& kernel() const { return block_attention_kernels()[GetParam()]; }
};

TEST_P(BlockAttentionKernels, agrees_with_float64_on_every_case) {
  int ran = 0;
  std::string reason;
  for (const AttentionCase& c : attention_cases()) {
    if (std::max(c.query_tokens, c.key_tokens) > (is_reference(kernel()) ? 130 : kLargest)) continue;
    const CaseResult result = run_attention_case(kernel(), c, pool().parallel(), kBudget);
    if (result.skipped.empty()) {
      ++ran;
      EXPECT_EQ(result.failure, "") << kernel().name << " on " << c.name;
    } else {
      reason = result.skipped;
    }
  }
  if (ran == 0) GTEST_SKIP() << kernel().name << ": " << reason;
}

TEST_P(BlockAttentionKernels, has_the_same_bits_for_any_number_of_workers) {
  for (const AttentionCase& c : attention_cases()) {
    if (c.name.find("tokens_") != 0 && c.name.find("levels_ragged") != 0 && c.name.find("dense_1000") != 0) continue;
    if (is_reference(kernel()) || !runs_here(kernel(), c.dtype)) continue;
    EXPECT_EQ(check_determinism(kernel(), c, pool().parallel(), 4), "");
  }
}

TEST_P(BlockAttentionKernels, gives_the_bits_of_a_full_layout_without_one) {
  for (ScalarType dtype : {ScalarType::kFloat32, ScalarType::kBFloat16}) {
    for (int32_t width : {32, 64, 128}) {
      if (is_reference(kernel()) || !runs_here(kernel(), dtype)) continue;
      EXPECT_EQ(check_dense_is_full(kernel(), dtype, width, pool().parallel()), "") << kernel().name << width;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockAttentionKernels, testing::Range<size_t>(0, block_attention_kernels().size()),
                         [](const auto& kernel) { return block_attention_kernels()[kernel.param].name; });

TEST(BlockAttentionList, ends_with_the_reference_that_refuses_nothing) {
  const BlockAttentionKernel& last = block_attention_kernels().back();
  EXPECT_STREQ(last.name, "block_attention_reference");
  BlockAttentionParams params;
  params.head_dim = 1000;
  EXPECT_EQ(last.refusal(params), "");
}

TEST(BlockAttentionList, refuses_with_the_reason) {
  for (const BlockAttentionKernel& kernel : block_attention_kernels()) {
    if (is_reference(kernel)) continue;
    BlockAttentionParams params;
    params.head_dim = 64;
    params.dtype = ScalarType::kBFloat16;
    const bool is_avx512 = std::strstr(kernel.name, "avx512") != nullptr;
    const bool is_bf16 = std::strstr(kernel.name, "bf16") != nullptr;
    const bool has_set = is_bf16 ? machine().has_avx512_bf16 : is_avx512 ? machine().has_avx512 : machine().has_avx2;
    if (!has_set) {
      EXPECT_EQ(kernel.refusal(params).find("needs AVX"), 0U) << kernel.name;
      continue;
    }
    EXPECT_EQ(kernel.refusal(params), "") << kernel.name;
    params.head_dim = 300;
    EXPECT_EQ(kernel.refusal(params), "head width 300, has up to 256");
    params.dtype = ScalarType::kFloat32;
    params.head_dim = 64;
    EXPECT_EQ(kernel.refusal(params), is_bf16 ? "has bf16 only" : "");
  }
}

TEST(BlockAttentionPlan, joins_equal_rows_and_cuts_them_evenly) {
  DenseLayout dense;
  dense.make(300, 100);
  KeySource source;
  source.key_blocks = dense.view.key_blocks;
  source.key_offsets = dense.view.key_offsets;
  WorkPlan plan;
  plan_work(dense.view, source, 1, plan);
  ASSERT_EQ(plan.heads.size(), 1U);
  ASSERT_EQ(plan.heads[0].size(), 3U);
  for (const WorkItem& item : plan.heads[0]) EXPECT_EQ(item.rows, 100);
}

// Which way single tokens go follows from how much neighbours share.
TEST(BlockAttentionPlan, takes_the_union_of_alike_neighbours_and_gathers_others) {
  for (const AttentionCase& c : attention_cases()) {
    const bool is_union = c.layout == CaseLayout::kTokensUnion, is_gather = c.layout == CaseLayout::kTokensGather;
    if (!is_union && !is_gather) continue;
    CaseRun run(c);
    const BlockLayoutView& layout = *run.params().layout;
    KeySource source;
    source.key_blocks = layout.key_blocks;
    source.key_offsets = layout.key_offsets;
    source.key_heads = c.key_heads;
    WorkPlan plan;
    plan_work(layout, source, c.heads, plan);
    const auto wanted = is_union ? WorkItem::Kind::kUnion : WorkItem::Kind::kGather;
    int32_t rows = 0, wanted_rows = 0;
    for (const WorkItem& item : plan.heads[0]) {
      rows += item.rows;
      wanted_rows += item.kind == wanted ? item.rows : 0;
    }
    EXPECT_EQ(rows, c.query_tokens) << c.name;
    EXPECT_GT(wanted_rows, c.query_tokens / 2) << c.name;
  }
}

TEST(CountPairs, counts_tokens_and_pooled_rows_once) {
  const int32_t query_offsets[] = {0, 10, 15}, key_offsets[] = {0, 8, 19};
  const uint64_t exact[] = {1, 0}, pooled[] = {2, 2};
  BlockLayoutView layout;
  layout.query_blocks = layout.key_blocks = 2;
  layout.words = 1;
  layout.query_offsets = query_offsets;
  layout.key_offsets = key_offsets;
  layout.planes[0] = exact;
  layout.planes[2] = pooled;
  BlockAttentionParams params;
  params.heads = 3;
  params.key_heads = 3;
  params.query_tokens = 15;
  params.key_tokens = 19;
  EXPECT_EQ(count_pairs(params), 3.0 * 15 * 19);
  params.layout = &layout;
  EXPECT_EQ(count_pairs(params), 3.0 * (10 * 8 + 15 * 3));
}

TEST(Machine, masks_take_away_what_builds_on_what_they_name) {
  const Machine all = probe_machine(nullptr);
  EXPECT_TRUE(all.masked.empty());
  const Machine none = probe_machine("no-avx2");
  EXPECT_FALSE(none.has_avx2 || none.has_avx512 || none.has_avx512_bf16 || none.has_amx_bf16);
  const Machine narrow = probe_machine("no-avx512");
  EXPECT_EQ(narrow.has_avx2, all.has_avx2);
  EXPECT_FALSE(narrow.has_avx512 || narrow.has_avx512_bf16);
  const Machine odd = probe_machine("no-bf16,no-such");
  EXPECT_FALSE(odd.has_fast_bf16());
  EXPECT_EQ(odd.has_avx512, all.has_avx512);
  EXPECT_EQ(odd.unknown_masks, std::vector<std::string>{"no-such"});
}

}  // namespace
}  // namespace strobe::kernels
