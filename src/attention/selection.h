// Choosing blocks from scores, exactly and with an order among ties: larger value first, then the smaller index.
//
// All on the CPU, float32 in, deterministic. NaN is treated as the smallest value.
#pragma once

#include <cstdint>
#include <vector>

namespace strobe::attention {

// Indices of the `count` best of scores[0, n), best first.
std::vector<int32_t> best_indices(const float* scores, int64_t n, int64_t count);

// Sets the bits of the `count` best of scores[0, n) in `bits` (64-bit words, lowest bit first); other bits stay.
void select_best(const float* scores, int64_t n, int64_t count, uint64_t* bits);

// Number of the leading entries, in descending order, whose running sum (double) first reaches `share` of `total`; at
// least 1, at most n. Order as best_indices.
int64_t prefix_reaching(const float* sorted_scores, int64_t n, double total, double share);

}  // namespace strobe::attention
