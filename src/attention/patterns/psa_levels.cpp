#include "attention/patterns/psa_levels.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/selection.h"

namespace strobe::attention {
namespace {

constexpr std::array<uint8_t, 4> kFactors = {1, 2, 4, 8};
constexpr double kEndSlack = 1e-6;
constexpr double kLeastFullShare = 0.06;  // rule by importance: this share of the blocks, and one, is read in full
constexpr int64_t kSourceTile = 32;
constexpr double kLeastNormProduct = 1e-6;

// Running sums of the ranked importance, over the total: ends at 1.
std::vector<double> running_shares(const float* importance, const std::vector<int32_t>& ranked) {
  std::vector<double> shares;
  shares.reserve(ranked.size());
  double sum = 0;
  for (const int32_t block : ranked) shares.push_back(sum += importance[block]);
  for (double& share : shares) share /= sum;
  return shares;
}

int64_t quota_end(double end, int64_t blocks) {
  return std::min(blocks, static_cast<int64_t>(static_cast<double>(blocks) * end));
}

// The block that crosses `end` still belongs to the level: the paper's text gives it to the next one, which may drop a
// row whole, but the public code and its thresholds keep it.
int64_t cumulative_end(double end, const std::vector<double>& shares, int64_t previous) {
  const auto covered = std::upper_bound(shares.begin(), shares.end(), end + kEndSlack) - shares.begin();
  return covered == 0 ? previous : std::min<int64_t>(covered + 1, static_cast<int64_t>(shares.size()));
}

// Length of a level up to a multiple, down where that reaches the last block.
int64_t rounded_end(int64_t first, int64_t end, int64_t multiple, int64_t blocks) {
  const int64_t up = std::min(first + (end - first + multiple - 1) / multiple * multiple, blocks);
  return up == blocks ? first + (up - first) / multiple * multiple : up;
}

// [rows, D], whole blocks: for each block the mean cosine of the first and last token of each run of 2, 4 and 8.
at::Tensor run_cosines(const at::Tensor& keys, int64_t block_size) {
  const int64_t blocks = keys.size(0) / block_size;
  const at::Tensor norms = at::linalg_vector_norm(keys, 2, at::IntArrayRef{1});
  std::vector<at::Tensor> means;
  for (const int64_t run : {2, 4, 8}) {
    const at::Tensor first = keys.slice(0, 0, std::nullopt, run), last = keys.slice(0, run - 1, std::nullopt, run);
    const at::Tensor products = norms.slice(0, 0, std::nullopt, run) * norms.slice(0, run - 1, std::nullopt, run);
    const at::Tensor cosines = (first * last).sum(1) / products.clamp_min(kLeastNormProduct);
    means.push_back(cosines.view({blocks, block_size / run}).mean(1));
  }
  return at::stack(means, 1);
}

at::Tensor block_cosines(const at::Tensor& keys, int64_t block_size) {
  const int64_t tokens = keys.size(0), whole = tokens / block_size * block_size;
  std::vector<at::Tensor> pieces;
  if (whole > 0) pieces.push_back(run_cosines(keys.narrow(0, 0, whole), block_size));
  if (whole < tokens) {
    const at::Tensor copies = keys.narrow(0, tokens - 1, 1).expand({whole + block_size - tokens, keys.size(1)});
    pieces.push_back(run_cosines(at::cat({keys.narrow(0, whole, tokens - whole), copies}), block_size));
  }
  return at::cat(pieces);
}

}  // namespace

std::array<int64_t, 4> parity_multiples(int64_t block_size) {
  const int64_t tiles = block_size / kSourceTile;
  std::array<int64_t, 4> multiples{};
  for (size_t i = 0; i < 4; ++i) multiples[i] = (kFactors[i] + tiles - 1) / tiles;
  return multiples;
}

void assign_levels(const float* importance, int64_t blocks, const PyramidLevels& levels, uint8_t* factors) {
  const std::vector<int32_t> ranked = best_indices(importance, blocks, blocks);
  const std::vector<double> shares = levels.is_quota ? std::vector<double>() : running_shares(importance, ranked);
  std::fill(factors, factors + blocks, uint8_t{0});
  int64_t first = 0;
  for (size_t i = 0; i < 4; ++i) {
    int64_t end = levels.is_quota ? quota_end(levels.ends[i], blocks) : cumulative_end(levels.ends[i], shares, first);
    end = std::max(end, first);
    if (levels.multiples[i] > 1) {
      end = rounded_end(first, end, levels.multiples[i], blocks);
    } else if (i == 0 && !levels.is_quota) {
      const auto least = static_cast<int64_t>(static_cast<double>(blocks) * kLeastFullShare) + 1;
      end = std::max(end, std::min(blocks, least));
    }
    for (; first < end; ++first) factors[ranked[static_cast<size_t>(first)]] = kFactors[i];
  }
  if (first == 0) factors[ranked[0]] = 1;
}

at::Tensor similarity_caps(const at::Tensor& k, int64_t block_size, const std::array<double, 3>& thresholds) {
  const int64_t heads = k.size(1), blocks = (k.size(2) + block_size - 1) / block_size;
  at::Tensor caps = at::ones({heads, blocks}, at::kByte);
  uint8_t* const cap = caps.mutable_data_ptr<uint8_t>();
  for (int64_t h = 0; h < heads; ++h) {
    const at::Tensor cosines = block_cosines(k[0][h].to(at::kFloat), block_size).cpu();
    const float* const cosine = cosines.const_data_ptr<float>();
    // The largest factor that passes, whether or not the smaller ones do.
    for (int64_t b = 0; b < blocks; ++b) {
      for (size_t i = 0; i < 3; ++i) {
        if (cosine[b * 3 + static_cast<int64_t>(i)] > thresholds[i]) cap[h * blocks + b] = kFactors[i + 1];
      }
    }
  }
  return caps;
}

}  // namespace strobe::attention
