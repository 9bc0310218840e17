#include "training/attention_gradients.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/parallel.h"
#include "training/gather_jobs.h"

namespace strobe::training {
namespace {

// Two tiles of scores and the rows that they belong to stay in a second-level cache of 1 MiB; a longer side feeds
// LibTorch's products better than a shorter one.
constexpr int64_t kTileKeys = 512;
constexpr int64_t kTileScores = int64_t{1} << 16;

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

// [N, D] of any dtype and strides with columns behind it, as float32.
at::Tensor with_columns(const at::Tensor& matrix, const std::vector<at::Tensor>& columns) {
  const int64_t width = matrix.size(1);
  at::Tensor all = at::ones({matrix.size(0), width + static_cast<int64_t>(columns.size())}, at::kFloat);
  all.narrow(1, 0, width).copy_(matrix);
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i].defined()) all.select(1, width + static_cast<int64_t>(i)).copy_(columns[i]);
  }
  return all;
}

// One head after another. What is subtracted from scores and from dO v^T rides in columns of its own behind the head
// width, so that a product of matrices gives log p and dp - sum(dO o) without another pass over the tile.
class HeadGradients {
 public:
  explicit HeadGradients(int64_t width) : width_(width) {
    scores_ = at::empty({kTileScores}, at::kFloat);
    slopes_ = at::empty_like(scores_);
  }

  void begin_keys(const at::Tensor& k, const at::Tensor& v, const at::Tensor& key_bias) {
    k_ = with_columns(k, {at::Tensor(), key_bias.defined() ? key_bias : at::zeros({1}, at::kFloat)});
    v_ = with_columns(v, {at::Tensor()});
    grad_k_ = at::zeros({k.size(0), width_}, at::kFloat);
    grad_v_ = at::zeros({k.size(0), width_}, at::kFloat);
  }

  void begin_queries(const at::Tensor& q, const at::Tensor& lse, const at::Tensor& grad_out, const at::Tensor& delta) {
    scale_ = 1.0 / std::sqrt(static_cast<double>(width_));
    q_ = with_columns(q, {lse.neg(), at::Tensor()});
    q_.narrow(1, 0, width_).mul_(scale_);
    grad_out_ = with_columns(grad_out, {delta.neg()});
    grad_q_ = at::zeros({q.size(0), width_}, at::kFloat);
  }

  void run(const GatherJob& job) {
    for (int64_t first = 0; first < job.keys.size(); first += kTileKeys) {
      run_keys(job, first, std::min(kTileKeys, job.keys.size() - first));
    }
  }

  const at::Tensor& grad_q() const { return grad_q_; }
  const at::Tensor& grad_k() const { return grad_k_; }
  const at::Tensor& grad_v() const { return grad_v_; }

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
      grad_q_.narrow(0, queries[0], count).addmm_(slope, k, 1, scale_);
      return;
    }
    const at::Tensor rows = at::mm(slope, k);
    for (int64_t i = 0; i < count; ++i) {
      add_scaled(rows.data_ptr<float>() + i * width_, static_cast<float>(scale_), width_,
                 grad_q_.data_ptr<float>() + queries[i] * width_);
    }
  }

  int64_t width_;
  double scale_ = 0;
  at::Tensor scores_, slopes_;
  at::Tensor k_, v_;         // [Nk, D + 2] with 1 and the bias, [Nk, D + 1] with 1
  at::Tensor q_, grad_out_;  // [Nq, D + 2] scaled, with -lse and 1; [Nq, D + 1] with -sum(dO o)
  at::Tensor grad_q_, grad_k_, grad_v_;
};

const HeadPlan& plan_of(const AttentionRecord& record, int64_t batch_row, int64_t head) {
  static const HeadPlan dense;
  return record.plans.empty() ? dense : record.plans[static_cast<size_t>(batch_row * record.q.size(1) + head)];
}

// The gradients of a key head and of the query heads that read it.
void run_key_head(const AttentionRecord& record, const at::Tensor& grad_out, const at::Tensor& delta, int64_t batch_row,
                  int64_t key_head, HeadGradients& work, AttentionGradients& all) {
  const auto of_head = [batch_row](const at::Tensor& x, int64_t head) {
    return x.select(0, batch_row).select(0, head);
  };
  at::Tensor bias;
  if (record.key_bias.defined()) bias = record.key_bias.select(0, batch_row);
  work.begin_keys(of_head(record.k, key_head), of_head(record.v, key_head), bias);
  const int64_t shared = record.q.size(1) / record.k.size(1);
  for (int64_t head = key_head * shared; head < (key_head + 1) * shared; ++head) {
    work.begin_queries(of_head(record.q, head), of_head(record.lse, head), of_head(grad_out, head),
                       of_head(delta, head));
    const std::vector<GatherJob> jobs =
        gather_jobs(plan_of(record, batch_row, head), bias.defined() ? bias.data_ptr<float>() : nullptr,
                    record.q.size(2), record.k.size(2));
    for (const GatherJob& job : jobs) work.run(job);
    of_head(all.q, head).copy_(work.grad_q());
  }
  of_head(all.k, key_head).copy_(work.grad_k());
  of_head(all.v, key_head).copy_(work.grad_v());
}

// Tokens before heads: as models make them.
at::Tensor tokens_first(const at::Tensor& x) {
  return at::empty({x.size(0), x.size(2), x.size(1), x.size(3)}, x.options()).transpose(1, 2);
}

}  // namespace

AttentionGradients attention_gradients(const AttentionRecord& record, const at::Tensor& grad_out) {
  if (!record.q.is_cpu()) throw UnsupportedError("attention with gradients: tensors on the CPU only");
  const at::NoGradGuard no_grad;
  AttentionRecord own = record;
  if (own.key_bias.defined()) own.key_bias = own.key_bias.contiguous();
  AttentionGradients all{tokens_first(own.q), tokens_first(own.k), tokens_first(own.v)};
  const at::Tensor delta = (grad_out.to(at::kFloat) * own.out).sum(-1);
  const int64_t key_heads = own.k.size(1);
  parallel_for(0, own.q.size(0) * key_heads, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad_here;
    HeadGradients work(own.q.size(3));
    for (int64_t i = begin; i < end; ++i) {
      run_key_head(own, grad_out, delta, i / key_heads, i % key_heads, work, all);
    }
  });
  return all;
}

}  // namespace strobe::training
