#include "training/recorded_attention.h"

#include "core/torch.h"
// After the precompiled header.
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "core/timer.h"
#include "training/attention_gradients.h"

namespace strobe::training {
namespace {

using attention::AttentionEvent;
using attention::AttentionInput;
using attention::AttentionKind;
using attention::AttentionSite;

constexpr const char* kDenseBlocks = "dense_blocks";
constexpr const char* kGatheredBlocks = "gathered_blocks";
constexpr const char* kMatmul = "torch_matmul";
constexpr const char* kSdpa = "torch_sdpa";

const char* kind_name(AttentionKind kind) {
  return kind == AttentionKind::kCross ? "cross" : kind == AttentionKind::kSelf ? "self" : "joint";
}

// What the forward pass leaves for the backward pass, besides the tensors that autograd keeps.
struct Recording : torch::CustomClassHolder {
  at::Tensor out;  // handed over in forward()
  at::Tensor lse, key_bias;
  std::vector<HeadPlan> plans;
  RecordedRow names;
  std::shared_ptr<RecordedStats> stats;
};

class RecordedFunction : public torch::autograd::Function<RecordedFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const c10::intrusive_ptr<Recording>& recording) {
    // Moved: autograd keeps `out` for us without a cycle.
    at::Tensor out = std::move(recording->out);
    context->save_for_backward({q, k, v, out});
    context->saved_data["recording"] = c10::IValue::make_capsule(recording);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled()) throw UnsupportedError("attention with gradients: no gradients of gradients");
    const Timer timer;
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const auto recording = c10::static_intrusive_pointer_cast<Recording>(context->saved_data["recording"].toCapsule());
    const AttentionGradients gradients = attention_gradients({.q = saved[0],
                                                              .k = saved[1],
                                                              .v = saved[2],
                                                              .key_bias = recording->key_bias,
                                                              .out = saved[3],
                                                              .lse = recording->lse,
                                                              .plans = recording->plans},
                                                             grads[0]);
    RecordedRow& row = recording->stats->row(recording->names);
    ++row.backward_calls;
    row.backward_ms += timer.milliseconds();
    return {gradients.q, gradients.k, gradients.v, at::Tensor()};
  }
};

void run_dense(const attention::BackendList& backends, const AttentionInput& input, Recording& recording) {
  const attention::AttentionProblem problem{.q = input.q,
                                            .k = input.k,
                                            .v = input.v,
                                            .key_bias = input.key_bias,
                                            .scale = 1.0 / std::sqrt(static_cast<double>(input.q.size(3))),
                                            .wants_lse = true};
  std::string passed_over;
  const attention::AttentionBackend& backend = choose_backend(backends, problem, passed_over);
  attention::AttentionOutput output;
  backend.run(problem, output);
  recording.out = output.out;
  recording.lse = output.lse;
  recording.names.pattern = "dense";
  recording.names.forward = backend.name();
  recording.names.backward = kDenseBlocks;
}

// Writes down a group of heads. The engine goes through the batch rows in order, and through all heads of each.
void record(const AttentionEvent& event, int64_t& heads_seen, Recording& recording) {
  const int64_t batch_row = heads_seen / event.all_heads;
  heads_seen += static_cast<int64_t>(event.heads.size());
  const bool is_shared = event.plan.layout && event.plan.layout->heads() == 1;
  for (size_t i = 0; i < event.heads.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    HeadPlan& plan = recording.plans[static_cast<size_t>(batch_row * event.all_heads + event.heads[i])];
    plan = {.layout = event.plan.layout,
            .layout_head = is_shared ? 0 : place,
            .pooling = event.plan.pooling,
            .orders = event.orders};
    recording.lse.select(0, batch_row).select(0, event.heads[i]).copy_(event.lse.select(0, 0).select(0, place));
  }
  attention::add_name(recording.names.pattern, event.method);
  attention::add_name(recording.names.forward, event.kernel);
  attention::add_name(recording.names.backward, event.plan.layout ? kGatheredBlocks : kDenseBlocks);
}

void run_rules(attention::AttentionEngine& engine, const AttentionSite& site, const AttentionInput& input,
               Recording& recording) {
  recording.plans.resize(static_cast<size_t>(input.q.size(0) * input.q.size(1)));
  recording.lse = at::empty({input.q.size(0), input.q.size(1), input.q.size(2)}, at::kFloat);
  int64_t heads_seen = 0;
  // Calls that nobody records need no log-sum-exps.
  struct Observed {
    attention::AttentionEngine& engine;
    ~Observed() { engine.set_observer({}); }
  } const observed{engine};
  engine.set_observer(
      {.on_call = [&](const AttentionEvent& event) { record(event, heads_seen, recording); }, .wants_lse = true});
  recording.out = engine(site, input);
}

// Plain operators, whose calls cost less than the blocks of a problem this small.
at::Tensor multiply(const AttentionInput& input) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(input.q.size(3)));
  at::Tensor scores = at::matmul(input.q * scale, input.k.transpose(2, 3));
  if (input.key_bias.defined()) {
    scores = scores + input.key_bias.view({input.key_bias.size(0), 1, 1, input.key_bias.size(1)});
  }
  return at::matmul(at::softmax(scores, -1), input.v);
}

// On a GPU.
at::Tensor call_sdpa(const AttentionInput& input) {
  std::optional<at::Tensor> mask;
  if (input.key_bias.defined()) {
    mask = input.key_bias.to(input.q.scalar_type()).view({input.key_bias.size(0), 1, 1, input.key_bias.size(1)});
  }
  return at::scaled_dot_product_attention(input.q, input.k, input.v, mask);
}

// LibTorch's own, forwards and backwards.
at::Tensor run_torch(const AttentionSite& site, const AttentionInput& input, RecordedStats& stats) {
  const Timer timer;
  const char* const name = input.q.is_cpu() ? kMatmul : kSdpa;
  at::Tensor out = input.q.is_cpu() ? multiply(input) : call_sdpa(input);
  RecordedRow& row = stats.row({.kind = kind_name(site.kind), .pattern = "dense", .forward = name, .backward = name});
  ++row.calls;
  row.forward_ms += timer.milliseconds();
  return out;
}

bool is_small(const AttentionInput& input) {
  constexpr int64_t kMostPairs = 1 << 14;
  return input.q.scalar_type() == at::kFloat && input.q.size(1) == input.k.size(1) &&
         input.q.size(2) * input.k.size(2) <= kMostPairs;
}

bool is_recorded(const AttentionInput& input) {
  return at::GradMode::is_enabled() && (input.q.requires_grad() || input.k.requires_grad() || input.v.requires_grad() ||
                                        (input.key_bias.defined() && input.key_bias.requires_grad()));
}

}  // namespace

RecordedRow& RecordedStats::row(const RecordedRow& names) {
  for (const auto& known : rows_) {
    if (known->kind == names.kind && known->pattern == names.pattern && known->forward == names.forward &&
        known->backward == names.backward) {
      return *known;
    }
  }
  return *rows_.emplace_back(std::make_unique<RecordedRow>(
      RecordedRow{.kind = names.kind, .pattern = names.pattern, .forward = names.forward, .backward = names.backward}));
}

std::vector<RecordedRow> RecordedStats::rows() const {
  std::vector<RecordedRow> rows;
  rows.reserve(rows_.size());
  for (const auto& row : rows_) rows.push_back(*row);
  return rows;
}

RecordedAttention::RecordedAttention(attention::EngineOptions options)
    : backends_(attention::make_backends(options.backend)),
      engine_(std::move(options)),
      stats_(std::make_shared<RecordedStats>()) {}

bool RecordedAttention::is_dense(const AttentionSite& site, int64_t heads) const {
  if (site.kind == AttentionKind::kCross) return true;
  const auto reaches = [&](const attention::AttentionRule& rule) {
    if (rule.is_dense() || !rule.dense_reason(site).empty()) return false;
    for (int64_t head = 0; head < heads; ++head) {
      if (rule.matches(site, head)) return true;
    }
    return false;
  };
  return std::none_of(engine_.rules().begin(), engine_.rules().end(), reaches);
}

at::Tensor RecordedAttention::operator()(const AttentionSite& site, const AttentionInput& input) {
  if (!is_recorded(input)) return engine_(site, input);
  if (input.key_bias.defined() && input.key_bias.requires_grad()) {
    throw UnsupportedError("attention with gradients: none of a key bias");
  }
  check_axes(input);
  const Timer timer;
  const bool is_sparse = !is_dense(site, input.q.size(1));
  if (!input.q.is_cpu() && is_sparse) {
    throw UnsupportedError("attention with gradients: sparse methods on the CPU only");
  }
  if (!is_sparse && (!input.q.is_cpu() || is_small(input))) return run_torch(site, input, *stats_);
  const auto recording = c10::make_intrusive<Recording>();
  recording->key_bias = input.key_bias;
  recording->names.kind = kind_name(site.kind);
  recording->stats = stats_;
  {
    const at::NoGradGuard no_grad;
    const AttentionInput detached{
        .q = input.q.detach(), .k = input.k.detach(), .v = input.v.detach(), .key_bias = input.key_bias};
    if (!is_sparse) {
      run_dense(backends_, detached, *recording);
    } else {
      run_rules(engine_, site, detached, *recording);
    }
  }
  at::Tensor out = RecordedFunction::apply(input.q, input.k, input.v, recording);
  RecordedRow& row = stats_->row(recording->names);
  ++row.calls;
  row.forward_ms += timer.milliseconds();
  return out;
}

}  // namespace strobe::training
