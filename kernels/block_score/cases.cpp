#include "kernels/block_score/cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/block_score/reference.h"
#include "kernels/common/bf16.h"
#include "kernels/common/case_random.h"
#include "kernels/common/guarded_buffer.h"

namespace strobe::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Sums of some thousand exponentials of fp32 scores.
constexpr double kSumTolerance = 2e-5;
constexpr double kMaximumTolerance = 1e-5;

std::vector<int32_t> block_offsets(int32_t tokens, int32_t block, CaseRandom& random) {
  std::vector<int32_t> offsets = {0};
  while (offsets.back() < tokens) {
    offsets.push_back(std::min(tokens, offsets.back() + (block > 0 ? block : 1 + random.below(150))));
  }
  return offsets;
}

struct Outputs {
  GuardedBuffer mass, row_sum, maxima, sum_exp;

  void make(const ScoreCase& c, size_t query_blocks, size_t key_blocks) {
    const size_t heads = static_cast<size_t>(c.batch) * c.heads, rows = heads * c.query_tokens;
    for (auto [buffer, count] : {std::pair<GuardedBuffer*, size_t>{&mass, heads * query_blocks * key_blocks},
                                 {&row_sum, rows},
                                 {&maxima, rows * key_blocks},
                                 {&sum_exp, rows}}) {
      *buffer = GuardedBuffer(count * sizeof(float));
      std::memset(buffer->data(), 0xff, buffer->size());
    }
  }
  bool is_intact() const {
    return mass.is_intact() && row_sum.is_intact() && maxima.is_intact() && sum_exp.is_intact();
  }
  bool equals(const Outputs& other) const {
    const auto equal = [](const GuardedBuffer& a, const GuardedBuffer& b) {
      return std::memcmp(a.data(), b.data(), a.size()) == 0;
    };
    return equal(mass, other.mass) && equal(row_sum, other.row_sum) && equal(maxima, other.maxima) &&
           equal(sum_exp, other.sum_exp);
  }
};

class Setup {
 public:
  explicit Setup(const ScoreCase& c) : c_(c), random_(c.query_tokens * 131 + c.key_tokens + c.head_dim) {
    q_ = make_tensor(c.heads, c.query_tokens, c.gain);
    k_ = make_tensor(c.key_heads, c.key_tokens, 1);
    query_offsets_ = block_offsets(c.query_tokens, c.query_block, random_);
    key_offsets_ = block_offsets(c.key_tokens, c.key_block, random_);
    if (c.has_bias || c.has_hidden_keys || c.has_hidden_blocks) make_bias();
  }

  BlockMaxParams max_params(Outputs& out) const {
    BlockMaxParams p;
    fill(p);
    p.maxima = static_cast<float*>(out.maxima.data());
    p.row_sum_exp = static_cast<float*>(out.sum_exp.data());
    return p;
  }

  BlockMassParams mass_params(Outputs& out) const {
    BlockMassParams p;
    fill(p);
    p.lse = lse_.data();
    p.query_blocks = static_cast<int32_t>(query_offsets_.size()) - 1;
    p.query_offsets = query_offsets_.data();
    p.mass = static_cast<float*>(out.mass.data());
    p.row_sum = static_cast<float*>(out.row_sum.data());
    return p;
  }

  // The rows' lse from the reference's maxima and sums, then made stale.
  void take_lse(const Outputs& out) {
    const auto* maxima = static_cast<const float*>(out.maxima.data());
    const auto* sums = static_cast<const float*>(out.sum_exp.data());
    const size_t blocks = key_offsets_.size() - 1;
    for (size_t row = 0; row < out.sum_exp.size() / sizeof(float); ++row) {
      const float top = *std::max_element(maxima + row * blocks, maxima + (row + 1) * blocks);
      lse_.push_back(top + std::log(sums[row]) + (row % 2 == 0 ? c_.lse_error : -c_.lse_error));
    }
  }

  size_t query_blocks() const { return query_offsets_.size() - 1; }
  size_t key_blocks() const { return key_offsets_.size() - 1; }

 private:
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
        const bool is_hidden =
            (c_.has_hidden_keys && random_.uniform() < 0.3) || (c_.has_hidden_blocks && t / 100 % 2 == 1);
        bias_.push_back(is_hidden ? -kInfinity : c_.has_bias ? random_.normal() : 0.0F);
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
    const auto view = [&](const GuardedBuffer& buffer, int64_t heads, int64_t tokens) {
      return TensorView{buffer.data(), heads * tokens * c_.head_dim, tokens * c_.head_dim, c_.head_dim};
    };
    p.q = view(q_, c_.heads, c_.query_tokens);
    p.k = view(k_, c_.key_heads, c_.key_tokens);
    p.scale = 1 / std::sqrt(static_cast<double>(c_.head_dim));
    p.key_bias = bias_.empty() ? nullptr : bias_.data();
    p.key_blocks = static_cast<int32_t>(key_offsets_.size()) - 1;
    p.key_offsets = key_offsets_.data();
  }

  const ScoreCase& c_;
  CaseRandom random_;
  GuardedBuffer q_, k_;
  std::vector<int32_t> query_offsets_, key_offsets_;
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
    if (a[i] == b[i]) continue;
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return kInfinity;
    worst = std::max(worst, std::fabs(double{a[i]} - b[i]) / std::max(1.0, std::fabs(double{b[i]}) / 8));
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
  add("long_query_blocks", 700, 129, 40, [](ScoreCase& c) { c.query_block = 300; });
  add("token_queries", 150, 200, 17, [](ScoreCase& c) { c.query_block = 1, c.key_block = 50; });
  add("grouped_heads", 100, 140, 64, [](ScoreCase& c) { c.heads = 6, c.batch = 2; });
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
  Setup setup(score_case);
  Outputs expected;
  expected.make(score_case, setup.query_blocks(), setup.key_blocks());
  run_reference_maxima(setup.max_params(expected));
  setup.take_lse(expected);
  run_reference_mass(setup.mass_params(expected));
  Outputs first;
  for (int workers = 1; workers <= 3; ++workers) {
    Outputs out;
    out.make(score_case, setup.query_blocks(), setup.key_blocks());
    BlockMaxParams maxima = setup.max_params(out);
    BlockMassParams mass = setup.mass_params(out);
    maxima.parallel = mass.parallel = parallel;
    maxima.parallel.workers = mass.parallel.workers = workers;
    kernel.maxima(maxima);
    kernel.mass(mass);
    if (!out.is_intact()) result.failure = "wrote outside its output";
    if (workers == 1) {
      first = std::move(out);
    } else if (!out.equals(first)) {
      result.failure = "other bits with " + std::to_string(workers) + " workers";
    }
  }
  result.maxima = worst_difference(first.maxima, expected.maxima);
  result.mass = relative_l2(first.mass, expected.mass);
  result.sums = std::max(relative_l2(first.row_sum, expected.row_sum), relative_l2(first.sum_exp, expected.sum_exp));
  const double tolerance = kSumTolerance * std::max(1.0F, score_case.gain);
  if (!(result.maxima <= kMaximumTolerance)) result.failure = "maxima are off by " + std::to_string(result.maxima);
  if (!(result.mass <= tolerance)) result.failure = "masses are off by " + std::to_string(result.mass);
  if (!(result.sums <= tolerance)) result.failure = "row sums are off by " + std::to_string(result.sums);
  return result;
}

}  // namespace strobe::kernels
