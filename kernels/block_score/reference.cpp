#include "kernels/block_score/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/common/bf16.h"
#include "kernels/common/parallel.h"

namespace strobe::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double element(ScalarType dtype, const void* data, int64_t index) {
  return dtype == ScalarType::kFloat32 ? static_cast<const float*>(data)[index]
                                       : widen_bf16(static_cast<const uint16_t*>(data)[index]);
}

// Scores of one row against all keys, bias added; -inf for hidden ones, whose k is not read.
template <class Params>
void score_row(const Params& p, int32_t b, int32_t h, int32_t token, std::vector<double>& scores) {
  const int64_t q = b * p.q.batch_stride + h * p.q.head_stride + token * p.q.token_stride;
  const int64_t k = b * p.k.batch_stride + h / (p.heads / p.key_heads) * p.k.head_stride;
  scores.resize(p.key_tokens);
  for (int32_t t = 0; t < p.key_tokens; ++t) {
    const double bias = p.key_bias ? p.key_bias[int64_t{b} * p.key_tokens + t] : 0.0;
    double product = 0;
    for (int32_t c = 0; c < p.head_dim && bias != -kInfinity; ++c) {
      product += element(p.dtype, p.q.data, q + c) * element(p.dtype, p.k.data, k + t * p.k.token_stride + c);
    }
    scores[t] = p.scale * product + bias;
  }
}

}  // namespace

void run_reference_mass(const BlockMassParams& p) {
  auto work = [&](int index) {
    const int32_t b = index / p.heads, h = index % p.heads;
    std::vector<double> scores, mass(p.key_blocks);
    for (int32_t m = 0; m < p.query_blocks; ++m) {
      std::fill(mass.begin(), mass.end(), 0.0);
      for (int32_t i = p.query_offsets[m]; i < p.query_offsets[m + 1]; ++i) {
        score_row(p, b, h, i, scores);
        const int64_t row = int64_t{index} * p.query_tokens + i;
        double total = 0;
        for (int32_t j = 0; j < p.key_blocks; ++j) {
          for (int32_t t = p.key_offsets[j]; t < p.key_offsets[j + 1]; ++t) {
            const double x = scores[t] == -kInfinity ? 0 : std::exp(std::min(scores[t] - p.lse[row], 30.0));
            mass[j] += x;
            total += x;
          }
        }
        if (p.row_sum) p.row_sum[row] = static_cast<float>(total);
      }
      float* out = p.mass + (int64_t{index} * p.query_blocks + m) * p.key_blocks;
      for (int32_t j = 0; j < p.key_blocks; ++j) out[j] = static_cast<float>(mass[j]);
    }
  };
  run_tasks(p.parallel, p.batch * p.heads, work);
}

void run_reference_maxima(const BlockMaxParams& p) {
  auto work = [&](int index) {
    std::vector<double> scores;
    for (int32_t i = 0; i < p.query_tokens; ++i) {
      score_row(p, index / p.heads, index % p.heads, i, scores);
      const int64_t row = int64_t{index} * p.query_tokens + i;
      for (int32_t j = 0; j < p.key_blocks; ++j) {
        double top = -kInfinity;
        for (int32_t t = p.key_offsets[j]; t < p.key_offsets[j + 1]; ++t) top = std::max(top, scores[t]);
        p.maxima[row * p.key_blocks + j] = static_cast<float>(top);
      }
      if (!p.row_sum_exp) continue;
      const double largest = scores.empty() ? -kInfinity : *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double s : scores) sum += s == -kInfinity ? 0 : std::exp(s - largest);
      p.row_sum_exp[row] = static_cast<float>(sum);
    }
  };
  run_tasks(p.parallel, p.batch * p.heads, work);
}

}  // namespace strobe::kernels
