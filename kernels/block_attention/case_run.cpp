#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/block_attention/cases.h"
#include "kernels/block_attention/reference.h"
#include "kernels/common/bf16.h"
#include "kernels/common/case_random.h"
#include "kernels/common/guarded_buffer.h"
#include "kernels/common/parallel.h"
#include "kernels/common/tolerance.h"

namespace strobe::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

size_t size_of(ScalarType dtype) { return dtype == ScalarType::kFloat32 ? 4 : 2; }

void set_element(ScalarType dtype, void* data, int64_t at, float value) {
  if (dtype == ScalarType::kFloat32) {
    static_cast<float*>(data)[at] = value;
  } else {
    static_cast<uint16_t*>(data)[at] = narrow_to_bf16(value);
  }
}

// A [B, H, N, D] tensor in one of the memory layouts; filled with NaN, gaps included.
struct Tensor {
  int32_t batch = 0, heads = 0, tokens = 0, width = 0;
  ScalarType dtype = ScalarType::kFloat32;
  GuardedBuffer buffer;
  int64_t batch_stride = 0, head_stride = 0, token_stride = 0;

  void make(const AttentionCase& c, int32_t num_heads, int32_t num_tokens) {
    batch = c.batch, heads = num_heads, tokens = num_tokens, width = c.head_dim, dtype = c.dtype;
    if (c.memory == CaseMemory::kTokensOuter) {
      head_stride = width, token_stride = int64_t{heads} * width, batch_stride = token_stride * tokens;
    } else {
      token_stride = c.memory == CaseMemory::kStrided ? width + 5 : width;
      head_stride = token_stride * tokens + (c.memory == CaseMemory::kStrided ? 11 : 0);
      batch_stride = head_stride * heads + (c.memory == CaseMemory::kStrided ? 3 : 0);
    }
    const int64_t last = at(batch - 1, heads - 1, tokens - 1) + width;
    buffer = GuardedBuffer(last * size_of(dtype));
    poison();
  }
  void poison() { std::memset(buffer.data(), 0xff, buffer.size()); }
  int64_t at(int32_t b, int32_t h, int32_t t) const { return b * batch_stride + h * head_stride + t * token_stride; }
  void set(int32_t b, int32_t h, int32_t t, int32_t c, float x) {
    set_element(dtype, buffer.data(), at(b, h, t) + c, x);
  }
  double get(int32_t b, int32_t h, int32_t t, int32_t c) const {
    const int64_t i = at(b, h, t) + c;
    return dtype == ScalarType::kFloat32 ? static_cast<const float*>(buffer.data())[i]
                                         : widen_bf16(static_cast<const uint16_t*>(buffer.data())[i]);
  }
  TensorView view() const { return {buffer.data(), batch_stride, head_stride, token_stride}; }
  // Elements that belong to no row still are as `poison` left them.
  bool has_intact_gaps() const {
    std::vector<bool> is_row(buffer.size() / size_of(dtype));
    for (int32_t b = 0; b < batch; ++b) {
      for (int32_t h = 0; h < heads; ++h) {
        for (int32_t t = 0; t < tokens; ++t) std::fill_n(is_row.begin() + at(b, h, t), width, true);
      }
    }
    const auto* bytes = static_cast<const uint8_t*>(buffer.data());
    for (size_t i = 0; i < is_row.size(); ++i) {
      for (size_t j = 0; j < size_of(dtype) && !is_row[i]; ++j) {
        if (bytes[i * size_of(dtype) + j] != 0xff) return false;
      }
    }
    return true;
  }
};

std::vector<int32_t> block_offsets(int32_t tokens, int32_t block, CaseRandom& random) {
  std::vector<int32_t> offsets = {0};
  while (offsets.back() < tokens) {
    const int32_t length = block > 0 ? block : 1 + random.below(150);
    offsets.push_back(std::min(tokens, offsets.back() + length));
  }
  return offsets;
}

// The level of a block pair, -1 for none.
int choose_level(const AttentionCase& c, int32_t head, int32_t m, int32_t j, int32_t query_blocks, int32_t key_blocks,
                 CaseRandom& random) {
  const int32_t near = static_cast<int32_t>(int64_t{m} * key_blocks / query_blocks);
  const bool is_random = random.uniform() < c.density;
  switch (c.layout) {
    case CaseLayout::kDense:
    case CaseLayout::kFull:
      return 0;
    case CaseLayout::kRandom:
      return is_random ? 0 : -1;
    case CaseLayout::kEmptyRows:
      return is_random && m % 3 != 1 ? 0 : -1;
    case CaseLayout::kAllEmpty:
      return -1;
    case CaseLayout::kOneBlock:
      return m == query_blocks / 2 && j == key_blocks / 2 ? 0 : -1;
    case CaseLayout::kColumn:
      return j == std::min(head + 1, key_blocks - 1) ? 0 : -1;
    case CaseLayout::kDiagonal:
      return j == near ? 0 : -1;
    case CaseLayout::kBand:
      return std::abs(j - near) <= 1 ? 0 : -1;
    case CaseLayout::kFirstAndLast:
      return j == 0 || j == key_blocks - 1 ? 0 : -1;
    case CaseLayout::kTextTail:
      return std::abs(j - near) <= 1 || j == key_blocks - 1 ? 0 : -1;
    case CaseLayout::kLevels:
      return random.below(5) - 1;
    case CaseLayout::kLevelsAndFull:
      return j < 2 ? 0 : 3;
    case CaseLayout::kTokensUnion:  // fifty neighbours keep the same, every third of them one block more
      return (m / 50 * 7 + j) % 3 == 0 || (m % 3 == 0 && j == m / 50 % key_blocks) ? 0 : -1;
    case CaseLayout::kTokensGather:
      return is_random ? 0 : -1;
  }
  return -1;
}

struct Layout {
  std::vector<int32_t> query_offsets, key_offsets;
  std::vector<uint64_t> planes[4];
  BlockLayoutView view;

  void make(const AttentionCase& c, CaseRandom& random) {
    query_offsets = block_offsets(c.query_tokens, c.query_block, random);
    key_offsets = block_offsets(c.key_tokens, c.key_block, random);
    view.heads = c.is_per_head ? c.heads : 1;
    view.query_blocks = static_cast<int32_t>(query_offsets.size()) - 1;
    view.key_blocks = static_cast<int32_t>(key_offsets.size()) - 1;
    view.words = (view.key_blocks + 63) / 64;
    view.query_offsets = query_offsets.data();
    view.key_offsets = key_offsets.data();
    for (auto& plane : planes) plane.assign(int64_t{view.heads} * view.query_blocks * view.words, 0);
    for (int32_t h = 0; h < view.heads; ++h) {
      for (int32_t m = 0; m < view.query_blocks; ++m) {
        for (int32_t j = 0; j < view.key_blocks; ++j) {
          const int level = choose_level(c, h, m, j, view.query_blocks, view.key_blocks, random);
          if (level < 0) continue;
          planes[level][(int64_t{h} * view.query_blocks + m) * view.words + j / 64] |= uint64_t{1} << (j % 64);
        }
      }
    }
    const bool is_pooled = c.layout == CaseLayout::kLevels || c.layout == CaseLayout::kLevelsAndFull;
    for (int plane = 0; plane < (is_pooled ? 4 : 1); ++plane) view.planes[plane] = planes[plane].data();
  }
};

uint64_t seed_of(const std::string& name) {
  uint64_t hash = 14695981039346656037ULL;
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ULL;
  return hash;
}

std::vector<int32_t> random_order(int32_t tokens, CaseRandom& random) {
  std::vector<int32_t> order(tokens);
  for (int32_t i = 0; i < tokens; ++i) {
    const int32_t other = random.below(i + 1);
    order[i] = order[other];
    order[other] = i;
  }
  return order;
}

// 0: the key is not hidden.
bool is_hidden_key(const AttentionCase& c, int32_t batch_row, int32_t token, CaseRandom& random) {
  if (c.bias == CaseBias::kHidden) return random.uniform() < 0.2;
  return c.bias == CaseBias::kHiddenBlocks && (token + 40 * batch_row) / 90 % 2 == 1;
}

}  // namespace

struct CaseRun::Data {
  AttentionCase c;
  Tensor q, k, v, out;
  GuardedBuffer lse;
  Layout layout;
  std::vector<float> bias, row_scale;
  std::vector<int32_t> query_order, key_order;
  BlockAttentionParams params;

  void fill(CaseRandom& random) {
    q.make(c, c.heads, c.query_tokens);
    k.make(c, c.key_heads, c.key_tokens);
    v.make(c, c.key_heads, c.key_tokens);
    out.make(c, c.heads, c.query_tokens);
    const auto fill_tensor = [&](Tensor& x, float gain) {
      for (int32_t b = 0; b < x.batch; ++b) {
        for (int32_t h = 0; h < x.heads; ++h) {
          for (int32_t t = 0; t < x.tokens; ++t) {
            for (int32_t i = 0; i < x.width; ++i) x.set(b, h, t, i, gain * random.normal());
          }
        }
      }
    };
    fill_tensor(q, c.gain);
    fill_tensor(k, 1);
    fill_tensor(v, 1);
    for (int32_t b = 0; b < c.batch; ++b) {
      for (int32_t t = 0; t < c.key_tokens; ++t) {
        const bool is_hidden = is_hidden_key(c, b, t, random);
        if (c.bias != CaseBias::kNone) {
          bias.push_back(is_hidden ? -kInfinity : c.bias == CaseBias::kFinite ? random.normal() : 0.0F);
        }
        for (int32_t h = 0; h < c.key_heads; ++h) {
          for (int32_t i = 0; i < c.head_dim; ++i) {
            if (c.has_constant_keys) k.set(b, h, t, i, 0.5F);
            if (c.has_outlier_key && t == c.key_tokens / 3) k.set(b, h, t, i, 20 * random.normal());
            if (is_hidden) k.set(b, h, t, i, kNan);
            if (is_hidden) v.set(b, h, t, i, 1e4F);
          }
        }
      }
    }
    for (int32_t t = 0; t < c.query_tokens && c.has_row_scale; ++t) row_scale.push_back(0.5F + 0.01F * (t % 100));
  }
};

CaseRun::CaseRun(const AttentionCase& attention_case) : data_(std::make_unique<Data>()) {
  Data& d = *data_;
  d.c = attention_case;
  CaseRandom random(seed_of(d.c.name));
  d.fill(random);
  BlockAttentionParams& p = d.params;
  p.dtype = d.c.dtype;
  p.batch = d.c.batch, p.heads = d.c.heads, p.key_heads = d.c.key_heads;
  p.query_tokens = d.c.query_tokens, p.key_tokens = d.c.key_tokens, p.head_dim = d.c.head_dim;
  p.q = d.q.view(), p.k = d.k.view();
  if (!d.c.is_lse_only) {
    p.v = d.v.view();
    p.out = {d.out.buffer.data(), d.out.batch_stride, d.out.head_stride, d.out.token_stride};
  }
  d.lse = GuardedBuffer(sizeof(float) * d.c.batch * d.c.heads * d.c.query_tokens);
  p.lse = static_cast<float*>(d.lse.data());
  p.scale = d.c.scale_factor / std::sqrt(static_cast<double>(d.c.head_dim));
  if (!d.row_scale.empty()) p.row_scale = d.row_scale.data();
  if (!d.bias.empty()) p.key_bias = d.bias.data();
  if (d.c.layout != CaseLayout::kDense) {
    d.layout.make(d.c, random);
    p.layout = &d.layout.view;
  }
  if (d.c.has_orders) {
    d.query_order = random_order(d.c.query_tokens, random);
    d.key_order = random_order(d.c.key_tokens, random);
    p.query_order = d.query_order.data(), p.key_order = d.key_order.data();
  }
  p.has_multiplicity_bias = d.c.has_multiplicity_bias;
  p.replicates_tail = d.c.replicates_tail;
  p.replicated_size = d.c.replicates_tail ? d.c.key_block : 0;
  poison_outputs();
}

CaseRun::~CaseRun() = default;

BlockAttentionParams& CaseRun::params() { return data_->params; }

void CaseRun::poison_outputs() {
  data_->out.poison();
  std::memset(data_->lse.data(), 0xff, data_->lse.size());
}

bool CaseRun::is_intact() const {
  return data_->out.buffer.is_intact() && data_->lse.is_intact() && data_->out.has_intact_gaps();
}

std::vector<uint8_t> CaseRun::output_bytes() const {
  const auto* out = static_cast<const uint8_t*>(data_->out.buffer.data());
  const auto* lse = static_cast<const uint8_t*>(data_->lse.data());
  std::vector<uint8_t> bytes(out, out + data_->out.buffer.size());
  bytes.insert(bytes.end(), lse, lse + data_->lse.size());
  return bytes;
}

double CaseRun::out_element(int32_t batch_row, int32_t head, int32_t token, int32_t column) const {
  return data_->out.get(batch_row, head, token, column);
}

namespace {

std::string place(const char* what, int32_t b, int32_t h, int32_t t, double got, double expected) {
  return std::string(what) + " of batch row " + std::to_string(b) + ", head " + std::to_string(h) + ", token " +
         std::to_string(t) + ": got " + std::to_string(got) + ", expected " + std::to_string(expected);
}

class Judge {
 public:
  Judge(const AttentionCase& c, CaseRun& run) : c_(c), run_(run), p_(run.params()), reference_(c.head_dim) {}

  CaseResult judge(double budget) {
    if (!run_.is_intact()) result_.failure = "wrote outside its output";
    const double row_cost = 2.0 * c_.key_tokens * c_.head_dim;
    const double rows = static_cast<double>(c_.batch) * c_.heads * c_.query_tokens;
    const double share = std::min(1.0, budget / (row_cost * rows));
    CaseRandom random(17);
    for (int32_t b = 0; b < c_.batch; ++b) {
      for (int32_t h = 0; h < c_.heads; ++h) {
        for (int32_t t = 0; t < c_.query_tokens; ++t) {
          const bool is_sampled = random.uniform() < share || t == 0 || t + 1 == c_.query_tokens;
          check_row(b, h, t, is_sampled);
        }
      }
    }
    result_.call = norm_ > 0 ? std::sqrt(error_ / norm_) : 0;
    const KernelTolerance tolerance = kernel_tolerance(c_.dtype);
    const auto expect = [&](const char* what, double value, double limit) {
      if (result_.failure.empty() && !(value <= limit)) {
        result_.failure = std::string(what) + " error " + std::to_string(value * 1e6) + "e-6 over " +
                          std::to_string(limit * 1e6) + "e-6; worst row: " + worst_;
      }
    };
    expect("call", result_.call, tolerance.call * gain());
    // A row of a few columns may happen to be next to zero.
    if (c_.head_dim >= 8) expect("row", result_.row, tolerance.row * gain());
    expect("lse", result_.lse, tolerance.lse);
    return result_;
  }

 private:
  // Large logits are known to 24 bits (8 for bf16 probabilities), so that probabilities are off by as much.
  double gain() const { return c_.gain > 1 && c_.dtype == ScalarType::kFloat32 ? 4 : 1; }

  void fail(const std::string& text) {
    if (result_.failure.empty()) result_.failure = text;
  }

  void check_row(int32_t b, int32_t h, int32_t t, bool is_compared) {
    const float lse = p_.lse[(int64_t{b} * c_.heads + h) * c_.query_tokens + t];
    if (std::isnan(lse)) return fail(place("lse", b, h, t, lse, 0));
    if (!c_.is_lse_only) {
      for (int32_t i = 0; i < c_.head_dim; ++i) {
        if (!std::isfinite(run_.out_element(b, h, t, i))) return fail(place("out", b, h, t, kNan, 0));
      }
    }
    if (!is_compared) return;
    const double expected = reference_attention_row(p_, b, h, t, c_.is_lse_only ? nullptr : reference_.data());
    if (std::isinf(expected) || std::isinf(lse)) {
      if (expected != lse) fail(place("lse", b, h, t, lse, expected));
    } else {
      result_.lse = std::max(result_.lse, std::fabs(lse - expected) / std::max(1.0, std::fabs(expected) / 8));
    }
    double error = 0, norm = 0;
    for (int32_t i = 0; i < c_.head_dim && !c_.is_lse_only; ++i) {
      const double x = run_.out_element(b, h, t, i) - reference_[i];
      error += x * x;
      norm += reference_[i] * reference_[i];
    }
    error_ += error;
    norm_ += norm;
    if (norm == 0 && error > 0) fail(place("out of an empty row", b, h, t, std::sqrt(error), 0));
    const double row = norm > 0 ? std::sqrt(error / norm) : 0;
    if (row > result_.row) {
      result_.row = row;
      worst_ = place("first column", b, h, t, run_.out_element(b, h, t, 0), reference_[0]);
    }
  }

  const AttentionCase& c_;
  CaseRun& run_;
  const BlockAttentionParams& p_;
  std::vector<double> reference_;
  CaseResult result_;
  double error_ = 0, norm_ = 0;
  std::string worst_;
};

}  // namespace

CaseResult run_attention_case(const BlockAttentionKernel& kernel, const AttentionCase& attention_case,
                              const Parallel& parallel, double budget) {
  CaseResult result;
  BlockAttentionParams asked;
  asked.dtype = attention_case.dtype;
  asked.head_dim = attention_case.head_dim;
  result.skipped = kernel.refusal(asked);  // before the tensors are made
  if (!result.skipped.empty()) return result;
  CaseRun run(attention_case);
  run.params().parallel = parallel;
  kernel.run(run.params());
  return Judge(attention_case, run).judge(budget);
}

std::string check_determinism(const BlockAttentionKernel& kernel, const AttentionCase& attention_case,
                              const Parallel& parallel, int runs) {
  CaseRun run(attention_case);
  kernel.run(run.params());
  const std::vector<uint8_t> expected = run.output_bytes();
  const int workers[] = {1, 2, 3, 7};
  for (int i = 0; i < runs; ++i) {
    run.params().parallel = parallel;
    run.params().parallel.workers = workers[i % 4];
    run.poison_outputs();
    kernel.run(run.params());
    if (run.output_bytes() != expected) {
      return attention_case.name + ": other bits in run " + std::to_string(i) + " with " +
             std::to_string(workers[i % 4]) + " workers";
    }
  }
  return "";
}

std::string check_dense_is_full(const BlockAttentionKernel& kernel, ScalarType dtype, int32_t head_dim,
                                const Parallel& parallel) {
  AttentionCase c;
  c.name = "dense_is_full";
  c.dtype = dtype;
  c.head_dim = head_dim;
  c.query_tokens = 515;
  c.key_tokens = 709;
  std::vector<uint8_t> expected;
  for (int32_t block : {0, 64, 128}) {
    c.layout = block == 0 ? CaseLayout::kDense : CaseLayout::kFull;
    c.query_block = c.key_block = block;
    CaseRun run(c);
    run.params().parallel = parallel;
    kernel.run(run.params());
    if (block == 0) expected = run.output_bytes();
    if (run.output_bytes() != expected) return "dense and a full layout of " + std::to_string(block) + " differ";
  }
  return "";
}

}  // namespace strobe::kernels
