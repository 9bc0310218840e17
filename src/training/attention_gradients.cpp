#include "training/attention_gradients.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/parallel.h"
#include "training/gather_jobs.h"

namespace strobe::training {
namespace {

// Two tiles of scores and the rows that they belong to stay in a second-level cache of 1 MiB. Tiles of twice the keys and
// twice the scores were no faster.
constexpr int64_t kTileKeys = 512;
constexpr int64_t kTileScores = int64_t{1} << 16;
// Up to 16 MiB of scores the calls into LibTorch, head by head, would cost more than the memory does.
constexpr int64_t kSmallScores = int64_t{1} << 22;

bool is_run(const int32_t* tokens, int64_t count) {
  for (int64_t i = 1; i < count; ++i) {
    if (tokens[i] != tokens[0] + i) return false;
  }
  return true;
}

bool is_unpooled_run(const KeyRows& keys, int64_t first, int64_t count) {
  return keys.starts[static_cast<size_t>(first + count)] - keys.starts[static_cast<size_t>(first)] == count &&
         is_run(keys.members.data() + keys.starts[static_cast<size_t>(first)], count);
}

void add_scaled(const float* from, float factor, int64_t width, float* to) {
  for (int64_t c = 0; c < width; ++c) to[c] += factor * from[c];
}

// Rows of a [N, C] matrix: where they follow each other a view, otherwise copies.
at::Tensor take_rows(const at::Tensor& matrix, const int32_t* rows, int64_t count) {
  if (is_run(rows, count)) return matrix.narrow(0, rows[0], count);
  const int64_t width = matrix.size(1);
  at::Tensor taken = at::empty({count, width}, matrix.options());
  const float* from = matrix.data_ptr<float>();
  float* to = taken.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) std::copy_n(from + rows[i] * width, width, to + i * width);
  return taken;
}

// Means of the members of rows [first, first + count).
at::Tensor take_means(const at::Tensor& matrix, const KeyRows& keys, int64_t first, int64_t count) {
  const int64_t width = matrix.size(1);
  at::Tensor taken = at::zeros({count, width}, matrix.options());
  const float* from = matrix.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    const int32_t begin = keys.starts[static_cast<size_t>(first + i)],
                  end = keys.starts[static_cast<size_t>(first + i + 1)];
    for (int32_t m = begin; m < end; ++m) {
      add_scaled(from + keys.members[static_cast<size_t>(m)] * width, 1.0F / static_cast<float>(end - begin), width,
                 taken.data_ptr<float>() + i * width);
    }
  }
  return taken;
}

// The transpose of take_means.
void add_to_members(const at::Tensor& rows, const KeyRows& keys, int64_t first, const at::Tensor& matrix) {
  const int64_t width = matrix.size(1);
  for (int64_t i = 0; i < rows.size(0); ++i) {
    const int32_t begin = keys.starts[static_cast<size_t>(first + i)],
                  end = keys.starts[static_cast<size_t>(first + i + 1)];
    for (int32_t m = begin; m < end; ++m) {
      add_scaled(rows.data_ptr<float>() + i * width, 1.0F / static_cast<float>(end - begin), width,
                 matrix.data_ptr<float>() + keys.members[static_cast<size_t>(m)] * width);
    }
  }
}

// [B, H, N, D] of any dtype and strides with columns behind it, as float32; an undefined one is 1.
at::Tensor with_columns(const at::Tensor& x, const std::vector<at::Tensor>& columns) {
  const int64_t width = x.size(3);
  at::Tensor all =
      at::ones({x.size(0), x.size(1), x.size(2), width + static_cast<int64_t>(columns.size())}, at::kFloat);
  all.narrow(3, 0, width).copy_(x);
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i].defined()) all.select(3, width + static_cast<int64_t>(i)).copy_(columns[i]);
  }
  return all;
}

// The operands of a call. What is subtracted from scores and from dO v^T rides in columns of its own behind the head
// width, so that a product of matrices gives log p and dp - sum(dO o) without another pass over the scores.
struct Operands {
  at::Tensor q;         // [B, H, Nq, D + 2] scaled, with -lse and 1
  at::Tensor grad_out;  // [B, H, Nq, D + 1] with -sum(dO o)
  at::Tensor k;         // [B, Hk, Nk, D + 2] with 1 and the bias; 0 where it hides a key
  at::Tensor v;         // [B, Hk, Nk, D + 1] with 1; likewise
  double scale = 1;

  Operands(const AttentionRecord& record, const at::Tensor& grad) {
    const int64_t width = record.q.size(3);
    scale = 1.0 / std::sqrt(static_cast<double>(width));
    // A query that sees no key has an output of 0, and weights of 0 below.
    q = with_columns(record.q, {record.lse.neg().masked_fill_(record.lse == -INFINITY, 0), {}});
    q.narrow(3, 0, width).mul_(scale);
    grad_out = with_columns(grad, {(grad.to(at::kFloat) * record.out).sum(-1).neg_()});
    const at::Tensor& bias = record.key_bias;
    k = with_columns(record.k, {{}, bias.defined() ? bias.unsqueeze(1) : at::zeros({1}, at::kFloat)});
    v = with_columns(record.v, {{}});
    if (!bias.defined()) return;
    const at::Tensor is_hidden = (bias == -INFINITY).unsqueeze(1).unsqueeze(3);
    k.narrow(3, 0, width).masked_fill_(is_hidden, 0);
    v.narrow(3, 0, width).masked_fill_(is_hidden, 0);
  }
};

at::Tensor of_head(const at::Tensor& x, int64_t batch_row, int64_t head) {
  return x.select(0, batch_row).select(0, head);
}

// One head after another, a thread.
class HeadGradients {
 public:
  HeadGradients(const Operands& operands, const AttentionGradients& all)
      : operands_(operands),
        all_(all),
        width_(all.q.size(3)),
        scores_(at::empty({kTileScores}, at::kFloat)),
        slopes_(at::empty({kTileScores}, at::kFloat)) {}

  void choose(int64_t batch_row, int64_t head, int64_t key_head) {
    q_ = of_head(operands_.q, batch_row, head);
    grad_out_ = of_head(operands_.grad_out, batch_row, head);
    grad_q_ = of_head(all_.q, batch_row, head);
    k_ = of_head(operands_.k, batch_row, key_head);
    v_ = of_head(operands_.v, batch_row, key_head);
    grad_k_ = of_head(all_.k, batch_row, key_head);
    grad_v_ = of_head(all_.v, batch_row, key_head);
  }

  void run(const GatherJob& job) {
    for (int64_t first = 0; first < job.keys.size(); first += kTileKeys) {
      run_keys(job, first, std::min(kTileKeys, job.keys.size() - first));
    }
  }

 private:
  struct KeyTile {
    at::Tensor k, v, grad_k, grad_v;
  };

  void run_keys(const GatherJob& job, int64_t first, int64_t count) {
    const bool is_view = is_unpooled_run(job.keys, first, count);
    KeyTile tile;
    if (is_view) {
      const int32_t token = job.keys.members[static_cast<size_t>(job.keys.starts[static_cast<size_t>(first)])];
      tile = {k_.narrow(0, token, count), v_.narrow(0, token, count), grad_k_.narrow(0, token, count),
              grad_v_.narrow(0, token, count)};
    } else {
      tile = {take_means(k_, job.keys, first, count), take_means(v_, job.keys, first, count),
              at::zeros({count, width_}, at::kFloat), at::zeros({count, width_}, at::kFloat)};
      float* bias = tile.k.data_ptr<float>() + width_ + 1;
      for (int64_t i = 0; i < count; ++i) bias[i * (width_ + 2)] = job.keys.bias[static_cast<size_t>(first + i)];
    }
    const int64_t step = kTileScores / count;
    const auto queries = static_cast<int64_t>(job.queries.size());
    for (int64_t at = 0; at < queries; at += step) {
      run_tile(job.queries.data() + at, std::min(step, queries - at), tile);
    }
    if (is_view) return;
    add_to_members(tile.grad_k, job.keys, first, grad_k_);
    add_to_members(tile.grad_v, job.keys, first, grad_v_);
  }

  void run_tile(const int32_t* queries, int64_t count, KeyTile& tile) {
    const at::Tensor q = take_rows(q_, queries, count), grad_out = take_rows(grad_out_, queries, count);
    const int64_t keys = tile.k.size(0);
    at::Tensor p = scores_.narrow(0, 0, count * keys).view({count, keys});
    at::Tensor slope = slopes_.narrow(0, 0, count * keys).view({count, keys});
    at::mm_out(p, q, tile.k.t());
    p.exp_();
    tile.grad_v.addmm_(p.t(), grad_out.narrow(1, 0, width_));
    at::mm_out(slope, grad_out, tile.v.t());
    slope.mul_(p);
    tile.grad_k.addmm_(slope.t(), q.narrow(1, 0, width_));
    const at::Tensor k = tile.k.narrow(1, 0, width_);
    if (is_run(queries, count)) {
      grad_q_.narrow(0, queries[0], count).addmm_(slope, k, 1, operands_.scale);
      return;
    }
    const at::Tensor rows = at::mm(slope, k);
    for (int64_t i = 0; i < count; ++i) {
      add_scaled(rows.data_ptr<float>() + i * width_, static_cast<float>(operands_.scale), width_,
                 grad_q_.data_ptr<float>() + queries[i] * width_);
    }
  }

  const Operands& operands_;
  const AttentionGradients& all_;
  int64_t width_;
  at::Tensor scores_, slopes_;
  at::Tensor q_, grad_out_, k_, v_, grad_q_, grad_k_, grad_v_;
};

const HeadPlan& plan_of(const AttentionRecord& record, int64_t batch_row, int64_t head) {
  static const HeadPlan dense;
  return record.plans.empty() ? dense : record.plans[static_cast<size_t>(batch_row * record.q.size(1) + head)];
}

// The gradients of a key head and of the query heads that read it.
void run_key_head(const AttentionRecord& record, int64_t batch_row, int64_t key_head, HeadGradients& work) {
  const float* bias = nullptr;
  if (record.key_bias.defined()) bias = record.key_bias.data_ptr<float>() + batch_row * record.k.size(2);
  const int64_t shared = record.q.size(1) / record.k.size(1);
  for (int64_t head = key_head * shared; head < (key_head + 1) * shared; ++head) {
    work.choose(batch_row, head, key_head);
    const HeadPlan& plan = plan_of(record, batch_row, head);
    for (const GatherJob& job : gather_jobs(plan, bias, record.q.size(2), record.k.size(2))) work.run(job);
  }
}

bool is_small_and_dense(const AttentionRecord& record) {
  const at::Tensor &q = record.q, &k = record.k;
  return record.plans.empty() && q.size(1) == k.size(1) &&
         q.size(0) * q.size(1) * q.size(2) * k.size(2) <= kSmallScores;
}

// All heads at once, the scores of the call in memory.
AttentionGradients small_gradients(const Operands& operands, int64_t width) {
  const auto heads = [](const at::Tensor& x) { return x.flatten(0, 1); };
  const at::Tensor q = heads(operands.q), k = heads(operands.k), grad_out = heads(operands.grad_out);
  const at::Tensor p = at::bmm(q, k.transpose(1, 2)).exp_();
  const at::Tensor slope = at::bmm(grad_out, heads(operands.v).transpose(1, 2)).mul_(p);
  const auto shaped = [&](const at::Tensor& x) { return x.view({operands.q.size(0), operands.q.size(1), -1, width}); };
  return {shaped(at::bmm(slope, k.narrow(2, 0, width)).mul_(operands.scale)),
          shaped(at::bmm(slope.transpose(1, 2), q.narrow(2, 0, width))),
          shaped(at::bmm(p.transpose(1, 2), grad_out.narrow(2, 0, width)))};
}

AttentionGradients gathered_gradients(const AttentionRecord& record, const Operands& operands) {
  const auto zeros = [](const at::Tensor& x) { return at::zeros(x.sizes(), at::kFloat); };
  AttentionGradients all{zeros(record.q), zeros(record.k), zeros(record.v)};
  const int64_t key_heads = record.k.size(1);
  parallel_for(0, record.q.size(0) * key_heads, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    HeadGradients work(operands, all);
    for (int64_t i = begin; i < end; ++i) run_key_head(record, i / key_heads, i % key_heads, work);
  });
  return all;
}

}  // namespace

AttentionGradients attention_gradients(const AttentionRecord& record, const at::Tensor& grad_out) {
  if (!record.q.is_cpu()) throw UnsupportedError("attention with gradients: tensors on the CPU only");
  const at::NoGradGuard no_grad;
  AttentionRecord own = record;
  if (own.key_bias.defined()) own.key_bias = own.key_bias.contiguous();
  const Operands operands(own, grad_out);
  const AttentionGradients all =
      is_small_and_dense(own) ? small_gradients(operands, own.q.size(3)) : gathered_gradients(own, operands);
  return {all.q.to(own.q.scalar_type()), all.k.to(own.k.scalar_type()), all.v.to(own.v.scalar_type())};
}

}  // namespace strobe::training
