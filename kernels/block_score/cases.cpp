#include "kernels/block_score/cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/block_attention/reference.h"
#include "kernels/block_score/reference.h"
#include "kernels/common/bf16.h"
#include "kernels/common/case_random.h"
#include "kernels/common/guarded_buffer.h"

namespace strobe::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Sums of some thousand exponentials of fp32 scores.
constexpr double kSumTolerance = 2e-5;
constexpr double kImportanceTolerance = 2e-5;

constexpr int32_t kRandomSampleBlock = 150;  // of importance, where lengths of blocks are random

std::vector<int32_t> block_offsets(int32_t tokens, int32_t block, CaseRandom& random) {
  std::vector<int32_t> offsets = {0};
  while (offsets.back() < tokens) {
    offsets.push_back(std::min(tokens, offsets.back() + (block > 0 ? block : 1 + random.below(150))));
  }
  return offsets;
}

// Samples of the blocks of each head: the same offsets in every block, and the last token again beyond the end.
std::vector<int32_t> sampled_tokens(int32_t heads, int32_t tokens, int32_t block, CaseRandom& random) {
  std::vector<int32_t> list;
  for (int32_t h = 0; h < heads; ++h) {
    std::vector<int32_t> offsets;
    for (int32_t i = 0; i < std::max(1, block / 4); ++i) offsets.push_back(random.below(block));
    for (int32_t first = 0; first < tokens; first += block) {
      for (const int32_t offset : offsets) list.push_back(std::min(tokens - 1, first + offset));
    }
  }
  return list;
}

struct Outputs {
  GuardedBuffer mass, row_sum, importance, softmax;

  void make(const ScoreCase& c, size_t query_blocks, size_t key_blocks, size_t sampled) {
    const size_t heads = static_cast<size_t>(c.batch) * c.heads, rows = heads * c.query_tokens;
    for (auto [buffer, count] : {std::pair<GuardedBuffer*, size_t>{&mass, heads * query_blocks * key_blocks},
                                 {&row_sum, rows},
                                 {&importance, sampled},
                                 {&softmax, sampled}}) {
      *buffer = GuardedBuffer(count * sizeof(float));
      std::memset(buffer->data(), 0xff, buffer->size());
    }
  }
  bool is_intact() const {
    return mass.is_intact() && row_sum.is_intact() && importance.is_intact() && softmax.is_intact();
  }
  bool equals(const Outputs& other) const {
    const auto equal = [](const GuardedBuffer& a, const GuardedBuffer& b) {
      return std::memcmp(a.data(), b.data(), a.size()) == 0;
    };
    return equal(mass, other.mass) && equal(row_sum, other.row_sum) && equal(importance, other.importance) &&
           equal(softmax, other.softmax);
  }
};

class Setup {
 public:
  explicit Setup(const ScoreCase& c) : c_(c), random_(c.query_tokens * 131 + c.key_tokens + c.head_dim) {
    q_ = make_tensor(c.heads, c.query_tokens, c.gain);
    k_ = make_tensor(c.key_heads, c.key_tokens, 1);
    query_offsets_ = block_offsets(c.query_tokens, c.query_block, random_);
    key_offsets_ = block_offsets(c.key_tokens, c.key_block, random_);
    if (c.has_bias || c.has_hidden_keys || c.has_hidden_blocks || c.has_largest_keys) make_bias();
    query_samples_ = sampled_tokens(c.heads, c.query_tokens, sample_block(c.query_block), random_);
    key_samples_ = sampled_tokens(c.heads, c.key_tokens, sample_block(c.key_block), random_);
    if (!c.has_largest_keys) make_lse();
  }

  // Of the first batch row, and of as many heads as there are key heads.
  BlockImportanceParams importance_params(Outputs& out, bool is_softmax) const {
    BlockImportanceParams p;
    p.dtype = c_.dtype;
    p.heads = c_.key_heads, p.head_dim = c_.head_dim;
    p.q = view(q_, c_.heads, c_.query_tokens), p.k = view(k_, c_.key_heads, c_.key_tokens);
    p.scale = scale();
    p.key_bias = bias_.empty() ? nullptr : bias_.data();
    p.query_samples = std::max(1, sample_block(c_.query_block) / 4);
    p.key_samples = std::max(1, sample_block(c_.key_block) / 4);
    p.query_blocks = static_cast<int32_t>(query_samples_.size()) / c_.heads / p.query_samples;
    p.key_blocks = static_cast<int32_t>(key_samples_.size()) / c_.heads / p.key_samples;
    p.query_tokens = query_samples_.data(), p.key_tokens = key_samples_.data();
    p.is_softmax = is_softmax;
    p.importance = static_cast<float*>(is_softmax ? out.softmax.data() : out.importance.data());
    return p;
  }

  BlockMassParams mass_params(Outputs& out) const {
    BlockMassParams p;
    fill(p);
    p.lse = lse_.data();
    p.key_blocks = static_cast<int32_t>(key_offsets_.size()) - 1;
    p.key_offsets = key_offsets_.data();
    p.query_blocks = static_cast<int32_t>(query_offsets_.size()) - 1;
    p.query_offsets = query_offsets_.data();
    p.mass = static_cast<float*>(out.mass.data());
    p.row_sum = static_cast<float*>(out.row_sum.data());
    return p;
  }

  size_t query_blocks() const { return query_offsets_.size() - 1; }
  size_t key_blocks() const { return key_offsets_.size() - 1; }
  Outputs outputs() const {
    Outputs out;
    const BlockImportanceParams p = importance_params(out, false);
    out.make(c_, query_blocks(), key_blocks(), static_cast<size_t>(p.heads) * p.query_blocks * p.key_blocks);
    return out;
  }

 private:
  static int32_t sample_block(int32_t block) { return block > 0 ? block : kRandomSampleBlock; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(c_.head_dim)); }
  TensorView view(const GuardedBuffer& buffer, int64_t heads, int64_t tokens) const {
    return {buffer.data(), heads * tokens * c_.head_dim, tokens * c_.head_dim, c_.head_dim};
  }

  // The rows' own lse, then made stale.
  void make_lse() {
    BlockAttentionParams p;
    fill(p);
    for (int32_t b = 0; b < c_.batch; ++b) {
      for (int32_t h = 0; h < c_.heads; ++h) {
        for (int32_t t = 0; t < c_.query_tokens; ++t) {
          const float error = lse_.size() % 2 == 0 ? c_.lse_error : -c_.lse_error;
          lse_.push_back(static_cast<float>(reference_attention_row(p, b, h, t, nullptr)) + error);
        }
      }
    }
  }

  GuardedBuffer make_tensor(int32_t heads, int32_t tokens, float gain) {
    const int64_t count = int64_t{c_.batch} * heads * tokens * c_.head_dim;
    const size_t size = c_.dtype == ScalarType::kFloat32 ? 4 : 2;
    GuardedBuffer buffer(count * size);
    for (int64_t i = 0; i < count; ++i) set(buffer, i, gain * random_.normal());
    return buffer;
  }

  void set(const GuardedBuffer& buffer, int64_t i, float value) const {
    if (c_.dtype == ScalarType::kFloat32) {
      static_cast<float*>(buffer.data())[i] = value;
    } else {
      static_cast<uint16_t*>(buffer.data())[i] = narrow_to_bf16(value);
    }
  }

  void make_bias() {
    for (int32_t b = 0; b < c_.batch; ++b) {
      for (int32_t t = 0; t < c_.key_tokens; ++t) {
        const bool is_hidden = (c_.has_hidden_keys && random_.uniform() < 0.3) ||
                               (c_.has_hidden_blocks && (t + c_.hidden_shift) / 100 % 2 == 1);
        const bool is_largest = c_.has_largest_keys && t % 50 < 20 && t > c_.key_tokens / 2;
        bias_.push_back(is_hidden ? -kInfinity : is_largest ? kInfinity : c_.has_bias ? random_.normal() : 0.0F);
        for (int32_t h = 0; h < c_.key_heads && is_hidden; ++h) {
          for (int32_t i = 0; i < c_.head_dim; ++i) {
            set(k_, ((int64_t{b} * c_.key_heads + h) * c_.key_tokens + t) * c_.head_dim + i, std::nanf(""));
          }
        }
      }
    }
  }

  template <class Params>
  void fill(Params& p) const {
    p.dtype = c_.dtype;
    p.batch = c_.batch, p.heads = c_.heads, p.key_heads = c_.key_heads;
    p.query_tokens = c_.query_tokens, p.key_tokens = c_.key_tokens, p.head_dim = c_.head_dim;
    p.q = view(q_, c_.heads, c_.query_tokens);
    p.k = view(k_, c_.key_heads, c_.key_tokens);
    p.scale = scale();
    p.key_bias = bias_.empty() ? nullptr : bias_.data();
  }

  const ScoreCase& c_;
  CaseRandom random_;
  GuardedBuffer q_, k_;
  std::vector<int32_t> query_offsets_, key_offsets_, query_samples_, key_samples_;
  std::vector<float> bias_, lse_;
};

// ||a - b|| / ||b||; infinite if infinities or NaN differ.
double relative_l2(const GuardedBuffer& actual, const GuardedBuffer& expected) {
  const auto* a = static_cast<const float*>(actual.data());
  const auto* b = static_cast<const float*>(expected.data());
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size() / sizeof(float); ++i) {
    if (std::isnan(a[i])) return kInfinity;
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return norm > 0 ? std::sqrt(error / norm) : error > 0 ? kInfinity : 0;
}

double worst_difference(const GuardedBuffer& actual, const GuardedBuffer& expected) {
  const auto* a = static_cast<const float*>(actual.data());
  const auto* b = static_cast<const float*>(expected.data());
  double worst = 0;
  for (size_t i = 0; i < expected.size() / sizeof(float); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return kInfinity;
    worst = std::max(worst, std::fabs(double{a[i]} - b[i]));
  }
  return worst;
}

}  // namespace

std::vector<ScoreCase> score_cases() {
  std::vector<ScoreCase> cases;
  const auto add = [&](const char* name, int32_t query_tokens, int32_t key_tokens, int32_t width, auto change) {
    ScoreCase c;
    c.name = name;
    c.query_tokens = query_tokens;
    c.key_tokens = key_tokens;
    c.head_dim = width;
    change(c);
    cases.push_back(c);
    c.name += "_bf16";
    c.dtype = ScalarType::kBFloat16;
    cases.push_back(c);
  };
  add("one", 1, 1, 64, [](ScoreCase&) {});
  add("uniform", 256, 320, 128, [](ScoreCase&) {});
  add("short_key_blocks", 200, 256, 128, [](ScoreCase& c) { c.key_block = 8; });
  add("sixteen_keys", 130, 335, 64, [](ScoreCase& c) { c.key_block = 16; });
  add("ragged", 333, 301, 32, [](ScoreCase& c) { c.query_block = c.key_block = 0; });
  add("long_query_blocks", 700, 129, 40, [](ScoreCase& c) { c.query_block = 600; });  // 150 samples
  add("token_queries", 150, 200, 17, [](ScoreCase& c) { c.query_block = 1, c.key_block = 50; });
  add("grouped_heads", 100, 140, 64, [](ScoreCase& c) { c.heads = 6, c.batch = 2; });
  add("blocks_over_stages", 300, 900, 64, [](ScoreCase& c) { c.key_block = 150, c.query_block = 90; });
  add("largest_keys", 130, 390, 64, [](ScoreCase& c) { c.has_largest_keys = true, c.key_block = 40; });
  add("all_hidden", 130, 90, 64, [](ScoreCase& c) { c.has_hidden_blocks = true, c.hidden_shift = 100; });
  add("bias", 130, 190, 64, [](ScoreCase& c) { c.has_bias = true, c.batch = 2; });
  add("hidden", 130, 390, 64, [](ScoreCase& c) { c.has_hidden_keys = true, c.batch = 2; });
  add("hidden_blocks", 130, 390, 64, [](ScoreCase& c) { c.has_hidden_blocks = true, c.key_block = 50; });
  add("stale_lse", 130, 190, 64, [](ScoreCase& c) { c.lse_error = 3; });
  add("very_stale_lse", 130, 190, 64, [](ScoreCase& c) { c.lse_error = 60; });
  add("large", 130, 190, 128, [](ScoreCase& c) { c.gain = 10; });
  return cases;
}

ScoreResult run_score_case(const BlockScoreKernel& kernel, const ScoreCase& score_case, const Parallel& parallel) {
  ScoreResult result;
  result.skipped = kernel.refusal(score_case.dtype, score_case.head_dim);
  if (!result.skipped.empty()) return result;
  const Setup setup(score_case);
  // Of +inf only the rule for importance says what it means.
  const bool has_sums = !score_case.has_largest_keys;
  const auto run = [&](const BlockScoreKernel& runner, Outputs& out, int workers) {
    for (const bool is_softmax : {false, true}) {
      BlockImportanceParams importance = setup.importance_params(out, is_softmax);
      importance.parallel = parallel;
      importance.parallel.workers = workers;
      if (has_sums || !is_softmax) runner.importance(importance);
    }
    BlockMassParams mass = setup.mass_params(out);
    mass.parallel = parallel;
    mass.parallel.workers = workers;
    if (has_sums) runner.mass(mass);
  };
  Outputs expected = setup.outputs(), first;
  run(block_score_kernels().back(), expected, 1);
  for (int workers = 1; workers <= 3; ++workers) {
    Outputs out = setup.outputs();
    run(kernel, out, workers);
    if (!out.is_intact()) result.failure = "wrote outside its output";
    if (workers == 1) {
      first = std::move(out);
    } else if (!out.equals(first)) {
      result.failure = "other bits with " + std::to_string(workers) + " workers";
    }
  }
  const double gain = std::max(1.0F, score_case.gain);
  const auto expect = [&](const char* what, double value, double limit) {
    if (!(value <= limit * gain)) result.failure = std::string(what) + " off by " + std::to_string(value);
  };
  result.importance = worst_difference(first.importance, expected.importance);
  expect("importance is", result.importance, kImportanceTolerance);
  if (!has_sums) return result;
  result.importance = std::max(result.importance, worst_difference(first.softmax, expected.softmax));
  result.mass = relative_l2(first.mass, expected.mass);
  result.sums = relative_l2(first.row_sum, expected.row_sum);
  expect("softmax importance is", result.importance, kImportanceTolerance);
  expect("masses are", result.mass, kSumTolerance);
  expect("row sums are", result.sums, kSumTolerance);
  return result;
}

}  // namespace strobe::kernels
