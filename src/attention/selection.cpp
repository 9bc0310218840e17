#include "attention/selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace strobe::attention {

namespace {

constexpr uint32_t kSignBit = 0x80000000U;

// Ascending keys are descending values, then ascending indices: one comparison of integers instead of two of looked-up
// floats.
uint64_t rank_key(float score, int64_t index) {
  if (std::isnan(score)) score = -std::numeric_limits<float>::infinity();
  const auto bits = std::bit_cast<uint32_t>(score + 0.0F);  // -0 and 0 are equal
  const uint32_t ascending = (bits & kSignBit) != 0 ? ~bits : bits | kSignBit;
  return static_cast<uint64_t>(~ascending) << 32 | static_cast<uint64_t>(index);
}

}  // namespace

std::vector<int32_t> best_indices(const float* scores, int64_t n, int64_t count) {
  std::vector<uint64_t> keys(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) keys[static_cast<size_t>(i)] = rank_key(scores[i], i);
  count = std::clamp<int64_t>(count, 0, n);
  const auto end = keys.begin() + count;
  if (count < n) std::nth_element(keys.begin(), end, keys.end());
  std::sort(keys.begin(), end);
  std::vector<int32_t> indices(static_cast<size_t>(count));
  std::transform(keys.begin(), end, indices.begin(), [](uint64_t key) { return static_cast<int32_t>(key); });
  return indices;
}

void select_best(const float* scores, int64_t n, int64_t count, uint64_t* bits) {
  for (const int32_t index : best_indices(scores, n, count)) bits[index / 64] |= uint64_t{1} << (index % 64);
}

int64_t prefix_reaching(const float* sorted_scores, int64_t n, double total, double share) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += sorted_scores[i];
    if (sum >= share * total) return i + 1;
  }
  return n;
}

}  // namespace strobe::attention
