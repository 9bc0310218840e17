#include "attention/patterns/psa_importance.h"

#include <numeric>

#include "core/torch.h"
// After the precompiled header.
#include "core/block_layout.h"

namespace strobe::attention {
namespace {

constexpr int64_t kSampled = 4;              // one token of this many
constexpr int64_t kMaximaOfCall = 16 << 20;  // 64 MB of float32: at 75,600 tokens all rows would be gigabytes
constexpr double kAlmostLargest = 1 - 1e-6;  // rounding between products of one score

// Finaliser of splitmix64 (Steele, Lea, Flood 2014).
uint64_t mixed(uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

uint64_t key_of(const AttentionSite& site, int64_t head, uint64_t stream) {
  const auto branch = site.branches.empty() ? 0U : static_cast<uint64_t>(site.branches[0]);
  uint64_t key = mixed(site.seed);
  for (const uint64_t part : {static_cast<uint64_t>(site.step), static_cast<uint64_t>(site.evaluation),
                              static_cast<uint64_t>(site.layer), branch, static_cast<uint64_t>(head), stream}) {
    key = mixed(key ^ part);
  }
  return key;
}

// Token of every sample, [H, blocks * samples] int64 on the device of `tokens_of`.
at::Tensor sampled_tokens(const at::Tensor& offsets, int64_t block, const at::Tensor& tokens_of) {
  const int64_t tokens = tokens_of.size(2), blocks = (tokens + block - 1) / block;
  const at::Tensor first = at::arange(blocks, at::kLong) * block;
  const at::Tensor all = (first.view({1, blocks, 1}) + offsets.unsqueeze(1)).clamp_max(tokens - 1);
  return all.reshape({offsets.size(0), -1}).to(tokens_of.device());
}

// [1, H, N, D] at [H, n] -> [H, 1, n, D].
at::Tensor gathered(const at::Tensor& x, const at::Tensor& tokens) {
  at::Tensor result = at::empty({x.size(1), 1, tokens.size(1), x.size(3)}, x.options());
  for (int64_t h = 0; h < x.size(1); ++h) {
    at::Tensor rows = result[h][0];
    at::index_select_out(rows, x[0][h], 0, tokens[h]);
  }
  return result;
}

// Maxima [H, 1, rows, K] of sampled queries -> [H, rows / samples, K].
at::Tensor reduced(const BlockMaxima& scores, int64_t samples, bool is_softmax) {
  const int64_t heads = scores.maxima.size(0), rows = scores.maxima.size(2), blocks = scores.maxima.size(3);
  at::Tensor reference = scores.maxima.amax({3}, true);
  if (is_softmax) reference = reference + scores.row_sum_exp.unsqueeze(3).log();
  const at::Tensor relative = (scores.maxima - reference).view({heads, rows / samples, samples, blocks});
  // exp is monotone: the largest exponent gives the largest value, and the largest key of a query exactly 1.
  at::Tensor importance = relative.amax({2}).exp_();
  if (!is_softmax) importance.masked_fill_(importance > kAlmostLargest, 1);
  return importance.cpu();
}

}  // namespace

at::Tensor random_offsets(const AttentionSite& site, int64_t heads, int64_t block, uint64_t stream) {
  const int64_t samples = block / kSampled;
  at::Tensor offsets = at::empty({heads, samples}, at::kLong);
  std::vector<int64_t> order(static_cast<size_t>(block));
  for (int64_t h = 0; h < heads; ++h) {
    const uint64_t key = key_of(site, h, stream);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t i = 0; i < samples; ++i) {
      // The bias of the remainder is below block / 2^64.
      const auto pick = static_cast<int64_t>(mixed(key + static_cast<uint64_t>(i)) % static_cast<uint64_t>(block - i));
      std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(i + pick)]);
    }
    std::sort(order.begin(), order.begin() + samples);
    std::copy_n(order.begin(), samples, offsets.mutable_data_ptr<int64_t>() + h * samples);
  }
  return offsets;
}

at::Tensor strided_offsets(int64_t heads, int64_t block) {
  return (at::arange(block / kSampled, at::kLong) * kSampled + 2).expand({heads, -1});
}

at::Tensor block_importance(const ImportanceInput& input, const Scorer& scorer) {
  const at::Tensor q_tokens = sampled_tokens(input.q_offsets, input.query_block, input.q);
  const at::Tensor k_tokens = sampled_tokens(input.k_offsets, input.key_block, input.k);
  const at::Tensor q = gathered(input.q, q_tokens), k = gathered(input.k, k_tokens);
  // Heads sample other keys, so each has its own bias: the batch axis of the scorer is ours for the heads.
  const at::Tensor bias =
      input.key_bias.defined() ? input.key_bias[0].index_select(0, k_tokens.flatten()).view_as(k_tokens) : at::Tensor();
  const int64_t q_samples = input.q_offsets.size(1), k_samples = input.k_offsets.size(1);
  const std::vector<int32_t> key_offsets = BlockLayout::uniform_offsets(k_tokens.size(1), k_samples);
  const int64_t heads = q.size(0), rows = q.size(2), query_blocks = rows / q_samples;
  const auto key_blocks = static_cast<int64_t>(key_offsets.size()) - 1;

  at::Tensor importance = at::empty({heads, query_blocks, key_blocks}, at::kFloat);
  const int64_t heads_of_call = std::clamp<int64_t>(kMaximaOfCall / (rows * key_blocks), 1, heads);
  const int64_t blocks_of_call = std::clamp<int64_t>(kMaximaOfCall / (q_samples * key_blocks), 1, query_blocks);
  for (int64_t h = 0; h < heads; h += heads_of_call) {
    const int64_t h_count = std::min(heads_of_call, heads - h);
    for (int64_t b = 0; b < query_blocks; b += blocks_of_call) {
      const int64_t b_count = std::min(blocks_of_call, query_blocks - b);
      const ScoreInput call{.q = q.narrow(0, h, h_count).narrow(2, b * q_samples, b_count * q_samples),
                            .k = k.narrow(0, h, h_count),
                            .key_bias = bias.defined() ? bias.narrow(0, h, h_count) : bias,
                            .scale = 0};
      const BlockMaxima scores = scorer.block_maxima(call, key_offsets, input.is_softmax);
      importance.narrow(0, h, h_count).narrow(1, b, b_count).copy_(reduced(scores, q_samples, input.is_softmax));
    }
  }
  return importance;
}

}  // namespace strobe::attention
