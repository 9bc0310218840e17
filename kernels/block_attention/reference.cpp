#include "kernels/block_attention/reference.h"

#include <algorithm>
#include <atomic>
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

// A key of a row's list: the mean of some tokens, and what its logit gets.
struct Key {
  std::vector<int32_t> tokens;  // a copy of a replicated tail is named again
  double bias = 0;
};

class RowReference {
 public:
  RowReference(const BlockAttentionParams& p, int32_t batch_row, int32_t head)
      : p_(p), batch_row_(batch_row), head_(head), key_head_(head / (p.heads / p.key_heads)) {}

  double run(int32_t token, double* out) {
    keys_.clear();
    list_keys(token);
    double largest = -kInfinity;
    logits_.clear();
    for (const Key& key : keys_) {
      logits_.push_back(logit(token, key));
      largest = std::max(largest, logits_.back());
    }
    if (out) std::fill_n(out, p_.head_dim, 0.0);
    if (keys_.empty()) return -kInfinity;
    double sum = 0;
    for (double& z : logits_) sum += z = std::exp(z - largest);
    for (size_t i = 0; out && i < keys_.size(); ++i) {
      const double weight = logits_[i] / sum / static_cast<double>(keys_[i].tokens.size());
      for (int32_t t : keys_[i].tokens) {
        for (int32_t c = 0; c < p_.head_dim; ++c) out[c] += weight * element(p_.dtype, p_.v.data, at(p_.v, t) + c);
      }
    }
    return largest + std::log(sum);
  }

 private:
  int64_t at(const TensorView& x, int32_t token) const {
    return batch_row_ * x.batch_stride + key_head_ * x.head_stride + token * x.token_stride;
  }

  double bias_of(int32_t token) const {
    return p_.key_bias ? p_.key_bias[int64_t{batch_row_} * p_.key_tokens + token] : 0.0;
  }

  // Places [first, end); those behind `last` are copies of it.
  void add_key(int32_t first, int32_t end, int32_t last, int plane) {
    Key key;
    for (int32_t p = first; p < end; ++p) {
      const int32_t place = std::min(p, last);
      const int32_t token = p_.key_order ? p_.key_order[place] : place;
      if (bias_of(token) != -kInfinity) key.tokens.push_back(token);
    }
    if (key.tokens.empty()) return;
    if (plane == 0) {
      key.bias = bias_of(key.tokens[0]);
    } else if (p_.has_multiplicity_bias) {
      key.bias = std::log(static_cast<double>(key.tokens.size()));
    }
    keys_.push_back(key);
  }

  int32_t place_of(int32_t token) const {
    if (!p_.query_order) return token;
    return static_cast<int32_t>(std::find(p_.query_order, p_.query_order + p_.query_tokens, token) - p_.query_order);
  }

  void list_keys(int32_t token) {
    if (!p_.layout) {
      for (int32_t t = 0; t < p_.key_tokens; ++t) add_key(t, t + 1, t, 0);
      return;
    }
    const BlockLayoutView& layout = *p_.layout;
    const int32_t* offsets = layout.query_offsets;
    const int32_t m =
        static_cast<int32_t>(std::upper_bound(offsets, offsets + layout.query_blocks + 1, place_of(token)) - offsets) -
        1;
    const int64_t row = (int64_t{layout.heads == 1 ? 0 : head_} * layout.query_blocks + m) * layout.words;
    for (int32_t j = 0; j < layout.key_blocks; ++j) {
      for (int plane = 0; plane < 4; ++plane) {
        if (!layout.planes[plane] || (layout.planes[plane][row + j / 64] >> (j % 64) & 1) == 0) continue;
        const int32_t begin = layout.key_offsets[j], end = layout.key_offsets[j + 1], factor = 1 << plane;
        int32_t stop = end;
        if (plane > 0 && p_.replicates_tail && j == layout.key_blocks - 1 && end > begin) {
          stop = std::max(end, begin + p_.replicated_size);
        }
        for (int32_t t = begin; t < stop; t += factor) add_key(t, std::min(t + factor, stop), end - 1, plane);
      }
    }
  }

  double logit(int32_t token, const Key& key) const {
    const int64_t q = batch_row_ * p_.q.batch_stride + head_ * p_.q.head_stride + token * p_.q.token_stride;
    double product = 0;
    for (int32_t t : key.tokens) {
      const int64_t k = at(p_.k, t);
      for (int32_t c = 0; c < p_.head_dim; ++c) {
        product += element(p_.dtype, p_.q.data, q + c) * element(p_.dtype, p_.k.data, k + c);
      }
    }
    const double scale = p_.scale * (p_.row_scale ? p_.row_scale[token] : 1.0);
    return scale * product / static_cast<double>(key.tokens.size()) + key.bias;
  }

  const BlockAttentionParams& p_;
  int32_t batch_row_, head_, key_head_;
  std::vector<Key> keys_;
  std::vector<double> logits_;
};

}  // namespace

double reference_attention_row(const BlockAttentionParams& params, int32_t batch_row, int32_t head, int32_t token,
                               double* out) {
  return RowReference(params, batch_row, head).run(token, out);
}

void run_reference_attention(const BlockAttentionParams& params) {
  const int64_t rows = int64_t{params.batch} * params.heads * params.query_tokens;
  std::atomic<int64_t> next{0};
  auto work = [&](int /*worker*/) {
    std::vector<double> out(params.head_dim);
    for (int64_t i = next.fetch_add(1); i < rows; i = next.fetch_add(1)) {
      const auto token = static_cast<int32_t>(i % params.query_tokens);
      const auto head = static_cast<int32_t>(i / params.query_tokens % params.heads);
      const auto b = static_cast<int32_t>(i / params.query_tokens / params.heads);
      const double lse = reference_attention_row(params, b, head, token, params.v.data ? out.data() : nullptr);
      if (params.lse) params.lse[i] = static_cast<float>(lse);
      if (!params.v.data) continue;
      const int64_t at = b * params.out.batch_stride + head * params.out.head_stride + token * params.out.token_stride;
      for (int32_t c = 0; c < params.head_dim; ++c) {
        const auto value = static_cast<float>(out[c]);
        if (params.dtype == ScalarType::kFloat32) {
          static_cast<float*>(params.out.data)[at + c] = value;
        } else {
          static_cast<uint16_t*>(params.out.data)[at + c] = narrow_to_bf16(value);
        }
      }
    }
  };
  run_tasks(params.parallel, std::max(params.parallel.workers, 1), work);
}

}  // namespace strobe::kernels
