#include "attention/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace strobe::attention {

std::vector<int32_t> best_indices(const float* scores, int64_t n, int64_t count) {
  std::vector<int32_t> indices(static_cast<size_t>(n));
  std::iota(indices.begin(), indices.end(), 0);
  count = std::clamp<int64_t>(count, 0, n);
  const auto value = [scores](int32_t i) {
    return std::isnan(scores[i]) ? -std::numeric_limits<float>::infinity() : scores[i];
  };
  const auto is_before = [&value](int32_t a, int32_t b) {
    const float va = value(a), vb = value(b);
    return va != vb ? va > vb : a < b;
  };
  const auto end = indices.begin() + count;
  if (count < n) std::nth_element(indices.begin(), end, indices.end(), is_before);
  std::sort(indices.begin(), end, is_before);
  indices.resize(static_cast<size_t>(count));
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
