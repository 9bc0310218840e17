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

template <class Params>
double product(const Params& p, int64_t q, int64_t k) {
  double sum = 0;
  for (int32_t c = 0; c < p.head_dim; ++c) sum += element(p.dtype, p.q.data, q + c) * element(p.dtype, p.k.data, k + c);
  return sum;
}

// Scores of one row against all keys, bias added; -inf for hidden ones, whose k is not read.
void score_row(const BlockMassParams& p, int32_t b, int32_t h, int32_t token, std::vector<double>& scores) {
  const int64_t q = b * p.q.batch_stride + h * p.q.head_stride + token * p.q.token_stride;
  const int64_t k = b * p.k.batch_stride + h / (p.heads / p.key_heads) * p.k.head_stride;
  scores.resize(p.key_tokens);
  for (int32_t t = 0; t < p.key_tokens; ++t) {
    const double bias = p.key_bias ? p.key_bias[int64_t{b} * p.key_tokens + t] : 0.0;
    scores[t] = bias == -kInfinity ? bias : p.scale * product(p, q, k + t * p.k.token_stride) + bias;
  }
}

// Scores of one sampled row against the samples of all key blocks.
void score_samples(const BlockImportanceParams& p, int32_t h, int32_t token, std::vector<double>& scores) {
  const int64_t q = h * p.q.head_stride + token * p.q.token_stride;
  const int32_t count = p.key_blocks * p.key_samples;
  const int32_t* keys = p.key_tokens + int64_t{h} * count;
  scores.resize(count);
  for (int32_t i = 0; i < count; ++i) {
    const double bias = p.key_bias ? p.key_bias[keys[i]] : 0.0;
    const int64_t k = h * p.k.head_stride + keys[i] * p.k.token_stride;
    scores[i] = bias == -kInfinity ? bias : p.scale * product(p, q, k) + bias;
  }
}

// Raises a row of importance to what one sampled query gives.
void raise_importance(const BlockImportanceParams& p, const std::vector<double>& scores, std::vector<double>& best) {
  const double top = scores.empty() ? -kInfinity : *std::max_element(scores.begin(), scores.end());
  if (top == -kInfinity) return;
  double sum = 1;
  if (p.is_softmax) {
    sum = 0;
    for (const double s : scores) sum += std::exp(s - top);
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    double& value = best[i / p.key_samples];
    value = std::max(value, scores[i] == top ? 1 / sum : std::exp(scores[i] - top) / sum);
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

void run_reference_importance(const BlockImportanceParams& p) {
  auto work = [&](int head) {
    std::vector<double> scores, best;
    const int32_t* tokens = p.query_tokens + int64_t{head} * p.query_blocks * p.query_samples;
    float* out = p.importance + int64_t{head} * p.query_blocks * p.key_blocks;
    for (int32_t m = 0; m < p.query_blocks; ++m, out += p.key_blocks) {
      best.assign(p.key_blocks, 0.0);
      for (int32_t i = 0; i < p.query_samples; ++i) {
        score_samples(p, head, *tokens++, scores);
        raise_importance(p, scores, best);
      }
      for (int32_t j = 0; j < p.key_blocks; ++j) {
        out[j] = static_cast<float>(!p.is_softmax && best[j] > kAlmostLargest ? 1.0 : best[j]);
      }
    }
  };
  run_tasks(p.parallel, p.heads, work);
}

}  // namespace strobe::kernels
