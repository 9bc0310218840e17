#include "attention/patterns/psa_levels.h"

#include <numeric>

#include "core/torch.h"
// After the precompiled header.
#include "attention/selection.h"
#include "core/parallel.h"

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

// In eight partial sums, which the compiler keeps in vectors: a sum in one would wait for itself.
float dot(const float* a, const float* b, int64_t width) {
  constexpr int64_t kLanes = 8;
  std::array<float, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[static_cast<size_t>(lane)] += a[i + lane] * b[i + lane];
  }
  for (; i < width; ++i) sums[0] += a[i] * b[i];
  return std::accumulate(sums.begin(), sums.end(), 0.0F);
}

// The cosines of the first and last of each run of 2, 4 and 8 rows of a block, summed by run length. `row(p)` is its
// p-th row, `size` a multiple of 8. Equal rows give 1 and not more.
template <class Row>
std::array<double, 3> run_cosines(const Row& row, int64_t size, int64_t width) {
  constexpr int64_t kLongest = 8;
  std::array<double, 3> sums{};
  for (int64_t first = 0; first < size; first += kLongest) {
    std::array<double, kLongest> norms{};
    for (int64_t i = 0; i < kLongest; ++i) {
      norms[static_cast<size_t>(i)] = std::sqrt(double{dot(row(first + i), row(first + i), width)});
    }
    for (size_t level = 0; level < sums.size(); ++level) {
      const int64_t run = int64_t{2} << level;
      for (int64_t begin = 0; begin < kLongest; begin += run) {
        const int64_t end = begin + run - 1;
        const double product = norms[static_cast<size_t>(begin)] * norms[static_cast<size_t>(end)];
        const double cosine = dot(row(first + begin), row(first + end), width) / std::max(product, kLeastNormProduct);
        sums[level] += std::min(cosine, 1.0);
      }
    }
  }
  return sums;
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

at::Tensor similarity_caps(const at::Tensor& k, const TokenOrder* order, int64_t block_size,
                           const std::array<double, 3>& thresholds) {
  const int64_t heads = k.size(1), tokens = k.size(2), width = k.size(3),
                blocks = (tokens + block_size - 1) / block_size;
  at::Tensor keys = k[0].to(at::kFloat).cpu();
  if (keys.stride(2) != 1) keys = keys.contiguous();
  const float* const data = keys.const_data_ptr<float>();
  at::Tensor caps = at::ones({heads, blocks}, at::kByte);
  uint8_t* const cap = caps.mutable_data_ptr<uint8_t>();
  parallel_for(0, heads * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* const of_head = data + i / blocks * keys.stride(0);
      const auto row = [&](int64_t p) {
        const int64_t place = std::min(i % blocks * block_size + p, tokens - 1);
        return of_head + (order ? order->raster()[static_cast<size_t>(place)] : place) * keys.stride(1);
      };
      const std::array<double, 3> sums = run_cosines(row, block_size, width);
      // The largest factor that passes, whether or not the smaller ones do.
      for (size_t level = 0; level < 3; ++level) {
        const double runs = static_cast<double>(block_size) / kFactors[level + 1];
        if (sums[level] / runs > thresholds[level]) cap[i] = kFactors[level + 1];
      }
    }
  });
  return caps;
}

}  // namespace strobe::attention
