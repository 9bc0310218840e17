#include "attention/patterns/psa_importance.h"

#include <numeric>

#include "core/torch.h"
// After the precompiled header.

namespace strobe::attention {
namespace {

constexpr int64_t kSampled = 4;  // one token of this many

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

// The samples of all blocks of `tokens` tokens, of which `order` tells who stands at a place.
BlockSamples samples_of(const at::Tensor& offsets, int64_t block, int64_t tokens, const TokenOrder* order) {
  const int64_t heads = offsets.size(0), count = offsets.size(1), blocks = (tokens + block - 1) / block;
  const at::Tensor own_offsets = offsets.contiguous();
  BlockSamples samples{.tokens = at::empty({heads, blocks * count}, at::kInt), .count = count};
  int32_t* next = samples.tokens.mutable_data_ptr<int32_t>();
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t* const of_head = own_offsets.const_data_ptr<int64_t>() + h * count;
    for (int64_t first = 0; first < tokens; first += block) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t place = std::min(first + of_head[i], tokens - 1);
        *next++ = order ? order->raster()[static_cast<size_t>(place)] : static_cast<int32_t>(place);
      }
    }
  }
  return samples;
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
  return scorer.block_importance({.q = input.q, .k = input.k, .key_bias = input.key_bias, .scale = 0},
                                 samples_of(input.q_offsets, input.query_block, input.q.size(2), input.orders.q.get()),
                                 samples_of(input.k_offsets, input.key_block, input.k.size(2), input.orders.k.get()),
                                 input.is_softmax);
}

}  // namespace strobe::attention
