// What the tests of the methods share: a method called as a run calls it, stored cases, and attention under a layout.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attention/schedule.h"
#include "attention/torch_scorer.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::attention::test_support {

// A method with its state at one layer and branch. Tensors come in the method's own order.
struct MethodCase {
  explicit MethodCase(const std::string& text) : rule(make_rule(ConfigNode::string(text))) {
    site.branches = {Branch::kCond};
    site.layers = 30;
    site.steps = 50;
  }

  AttentionPlan plan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& key_bias = {}) {
    if (site.grid.tokens() == 0) site.grid = {.frames = 1, .rows = 1, .cols = q.size(2)};
    return rule.pattern->plan(call(q, k, key_bias));
  }

  // Plans, and lets the method observe a dense call if it wants to; the layout that the state then holds.
  LayoutPtr search(const at::Tensor& q, const at::Tensor& k, const at::Tensor& key_bias = {}) {
    const AttentionPlan planned = plan(q, k, key_bias);
    if (!planned.wants_lse) return planned.layout;
    return rule.pattern->observe(call(q, k, key_bias), scorer.row_lse({.q = q, .k = k, .key_bias = key_bias}));
  }

  PatternCall call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& key_bias) {
    return {.site = site, .q = q, .k = k, .key_bias = key_bias, .scorer = scorer, .state = state};
  }

  AttentionRule rule;
  AttentionSite site;
  PatternState state;
  TorchScorer scorer;
};

// A case of tests/goldens/patterns.
struct StoredCase {
  explicit StoredCase(const std::string& name)
      : tensors(weights::open_safetensors(test::golden_path("patterns/" + name + ".safetensors"))),
        json(weights::load_json(test::golden_path("patterns/" + name + ".json"))) {}
  at::Tensor operator()(const std::string& name) const { return tensors->read(name); }
  const ConfigNode& params() const { return json.at("params"); }

  std::shared_ptr<const weights::TensorSource> tensors;
  ConfigNode json;
};

inline at::Tensor random_tokens(uint64_t seed, std::vector<int64_t> shape) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

// uint8 [H, M, K]
inline at::Tensor levels_of(const BlockLayout& layout) {
  at::Tensor levels = at::empty({layout.heads(), layout.query_blocks(), layout.key_blocks()}, at::kByte);
  uint8_t* next = levels.mutable_data_ptr<uint8_t>();
  for (int64_t h = 0; h < layout.heads(); ++h) {
    for (int64_t i = 0; i < layout.query_blocks(); ++i) {
      for (int64_t j = 0; j < layout.key_blocks(); ++j) *next++ = static_cast<uint8_t>(layout.factor(h, i, j));
    }
  }
  return levels;
}

struct ReferenceOutput {
  at::Tensor out;  // [1, H, N, D] float64
  at::Tensor lse;  // [1, H, N]
};

// Pooled rows of one factor: their members' shares [rows, N], the number of members and the key block of each.
struct PooledRows {
  at::Tensor shares;   // float64
  at::Tensor members;  // float64 [rows]
  at::Tensor block;    // int64 [rows]
};

inline PooledRows pooled_rows(const std::vector<int32_t>& key_offsets, int64_t factor, const PoolingRule& rule) {
  std::vector<at::Tensor> shares;
  std::vector<double> members;
  std::vector<int64_t> blocks;
  for (size_t j = 0; j + 1 < key_offsets.size(); ++j) {
    const int64_t first = key_offsets[j], end = key_offsets[j + 1];
    const bool has_copies = rule.replicates_tail && factor > 1;
    const int64_t size = has_copies ? std::max(rule.replicated_size, end - first) : end - first;
    for (int64_t g = 0; g < size; g += factor) {
      const int64_t count = std::min(factor, size - g);
      at::Tensor row = at::zeros({key_offsets.back()}, at::kDouble);
      for (int64_t i = 0; i < count; ++i) row[std::min(first + g + i, end - 1)] += 1.0 / static_cast<double>(count);
      shares.push_back(row);
      members.push_back(static_cast<double>(count));
      blocks.push_back(static_cast<int64_t>(j));
    }
  }
  return {.shares = at::stack(shares), .members = at::tensor(members, at::kDouble), .block = at::tensor(blocks)};
}

// Every pooled row written out in float64; kernels/block_attention/block_attention.h says what they are. No hidden keys.
inline ReferenceOutput attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const BlockLayout& layout,
                              const PoolingRule& rule = {}) {
  const at::Tensor query_block = at::zeros({q.size(2)}, at::kLong);
  for (int64_t i = 0; i < layout.query_blocks(); ++i) {
    query_block.slice(0, layout.query_offsets()[static_cast<size_t>(i)]).fill_(i);
  }
  const at::Tensor levels = levels_of(layout).index_select(1, query_block);  // [H, N, K]
  const at::Tensor none = at::full({}, -INFINITY, at::kDouble);
  std::vector<at::Tensor> logits, values;
  for (const int64_t factor : {1, 2, 4, 8}) {
    if (!(levels == factor).any().item<bool>()) continue;
    const PooledRows rows = pooled_rows(layout.key_offsets(), factor, rule);
    const at::Tensor keys = at::matmul(rows.shares, k.to(at::kDouble));
    at::Tensor z = at::matmul(q.to(at::kDouble), keys.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
    if (rule.has_multiplicity_bias) z = z + rows.members.log();
    logits.push_back(at::where(levels.index_select(2, rows.block) == factor, z, none));
    values.push_back(at::matmul(rows.shares, v.to(at::kDouble)));
  }
  const at::Tensor z = at::cat(logits, 3), lse = at::logsumexp(z, {3});
  return {.out = at::matmul((z - lse.unsqueeze(3)).exp(), at::cat(values, 2)), .lse = lse};
}

}  // namespace strobe::attention::test_support
