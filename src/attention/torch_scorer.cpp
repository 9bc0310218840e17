#include "attention/torch_scorer.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "kernels/block_score/block_score.h"

namespace strobe::attention {
namespace {

constexpr int64_t kChunkScores = 1 << 22;  // of one chunk of rows, all heads: 16 MB of float32

// Larger exponents come from an old LSE and would overflow; adaspa.md section 6.2.
constexpr double kLargestExponent = 30.0;

at::Tensor keys_for_heads(const at::Tensor& k, int64_t heads) {
  return k.size(1) == heads ? k : k.repeat_interleave(heads / k.size(1), 1);
}

// Calls visit(first row, scores [B, H, rows, Nk] float32) for chunks of query rows.
void for_chunks(const ScoreInput& input, const std::function<void(int64_t, const at::Tensor&)>& visit) {
  const int64_t rows = input.q.size(2), keys = input.k.size(2), heads = input.q.size(0) * input.q.size(1);
  const double scale = input.scale != 0 ? input.scale : 1.0 / std::sqrt(static_cast<double>(input.q.size(3)));
  const at::Tensor k = keys_for_heads(input.k, input.q.size(1)).to(at::kFloat).transpose(2, 3);
  const int64_t chunk = std::max<int64_t>(1, kChunkScores / std::max<int64_t>(1, keys * heads));
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t count = std::min(chunk, rows - first);
    at::Tensor scores = at::matmul(input.q.narrow(2, first, count).to(at::kFloat), k) * scale;
    if (input.key_bias.defined()) {
      // Not added to hidden keys: they may hold anything.
      const at::Tensor bias = input.key_bias.view({input.key_bias.size(0), 1, 1, keys});
      scores = at::where(bias == -INFINITY, at::full({}, -INFINITY, scores.options()), scores + bias);
    }
    visit(first, scores);
  }
}

// Index of the block of each token.
at::Tensor block_of_token(const std::vector<int32_t>& offsets, const at::Device& device) {
  std::vector<int64_t> blocks(static_cast<size_t>(offsets.back()));
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    std::fill(blocks.begin() + offsets[b], blocks.begin() + offsets[b + 1], static_cast<int64_t>(b));
  }
  return at::tensor(blocks, at::kLong).to(device);
}

}  // namespace

at::Tensor TorchScorer::row_lse(const ScoreInput& input) const {
  std::vector<at::Tensor> pieces;
  for_chunks(input, [&](int64_t, const at::Tensor& scores) { pieces.push_back(at::logsumexp(scores, {3})); });
  return at::cat(pieces, 2);
}

BlockMass TorchScorer::block_mass(const ScoreInput& input, const at::Tensor& lse,
                                  const std::vector<int32_t>& query_offsets, const std::vector<int32_t>& key_offsets,
                                  bool wants_row_sum) const {
  STROBE_CHECK(query_offsets.back() == input.q.size(2) && key_offsets.back() == input.k.size(2),
               "block mass: offsets end at {} and {}, tensors at {} and {}", query_offsets.back(), key_offsets.back(),
               input.q.size(2), input.k.size(2));
  const int64_t batch = input.q.size(0), heads = input.q.size(1);
  const auto query_blocks = static_cast<int64_t>(query_offsets.size()) - 1;
  const auto key_blocks = static_cast<int64_t>(key_offsets.size()) - 1;
  const at::Tensor key_block = block_of_token(key_offsets, input.q.device());
  const at::Tensor query_block = block_of_token(query_offsets, input.q.device());
  const auto options = input.q.options().dtype(at::kFloat);
  BlockMass result{.mass = at::zeros({batch, heads, query_blocks, key_blocks}, options), .row_sum = {}};
  std::vector<at::Tensor> sums;
  for_chunks(input, [&](int64_t first, const at::Tensor& scores) {
    const int64_t count = scores.size(2);
    const at::Tensor weights = (scores - lse.narrow(2, first, count).unsqueeze(3)).clamp_max(kLargestExponent).exp();
    const at::Tensor by_key = at::zeros({batch, heads, count, key_blocks}, options).index_add(3, key_block, weights);
    result.mass.index_add_(2, query_block.narrow(0, first, count), by_key);
    if (wants_row_sum) sums.push_back(weights.sum(3));
  });
  if (wants_row_sum) result.row_sum = at::cat(sums, 2);
  return result;
}

at::Tensor TorchScorer::block_importance(const ScoreInput& input, const BlockSamples& queries, const BlockSamples& keys,
                                         bool is_softmax) const {
  const int64_t heads = input.q.size(1), query_blocks = queries.tokens.size(1) / queries.count,
                key_blocks = keys.tokens.size(1) / keys.count;
  const at::Tensor q_tokens = queries.tokens.to(input.q.device()), k_tokens = keys.tokens.to(input.k.device());
  const auto sampled = [](const at::Tensor& x, int64_t head, const at::Tensor& tokens) {
    return x[0][head].index_select(0, tokens).to(at::kFloat).unsqueeze(0).unsqueeze(0);
  };
  at::Tensor importance = at::zeros({heads, query_blocks, key_blocks}, input.q.options().dtype(at::kFloat));
  for (int64_t h = 0; h < heads; ++h) {
    const at::Tensor q = sampled(input.q, h, q_tokens[h]), k = sampled(input.k, h, k_tokens[h]);
    const at::Tensor bias = input.key_bias.defined() ? input.key_bias.index_select(1, k_tokens[h]) : at::Tensor();
    for (int64_t m = 0; m < query_blocks; ++m) {
      at::Tensor best = importance[h][m];
      const ScoreInput block{
          .q = q.narrow(2, m * queries.count, queries.count), .k = k, .key_bias = bias, .scale = input.scale};
      for_chunks(block, [&](int64_t, const at::Tensor& all) {
        const at::Tensor scores = all[0][0], top = scores.amax({1}, true);
        // Of a key of bias +inf the difference is 0, not NaN; a query without a visible key counts for nothing.
        at::Tensor values = at::where(scores == top, at::zeros({}, top.options()), scores - top).exp();
        if (is_softmax) values = values / values.sum(1, true);
        values = values.masked_fill(top == -INFINITY, 0);
        at::maximum_out(best, best, values.amax({0}).view({key_blocks, keys.count}).amax({1}));
      });
    }
  }
  if (!is_softmax) importance.masked_fill_(importance > kernels::kAlmostLargest, 1);
  return importance.cpu();
}

}  // namespace strobe::attention
