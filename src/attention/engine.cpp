#include "attention/engine.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/torch_scorer.h"
#include "core/error.h"
#include "core/nearest.h"
#include "core/timer.h"

namespace strobe::attention {

#define STROBE_BACKEND(name) std::unique_ptr<AttentionBackend> make_##name##_backend();
#include "attention/backends/backends.inc"
#undef STROBE_BACKEND

std::vector<std::string> backend_names() {
  return {
#define STROBE_BACKEND(name) #name,
#include "attention/backends/backends.inc"
#undef STROBE_BACKEND
  };
}

std::vector<std::unique_ptr<AttentionBackend>> make_backends(const std::string& forced) {
  std::vector<std::unique_ptr<AttentionBackend>> backends;
#define STROBE_BACKEND(row) \
  if (forced == "auto" || forced == #row) backends.push_back(make_##row##_backend());
#include "attention/backends/backends.inc"
#undef STROBE_BACKEND
  if (backends.empty()) throw ConfigError(unknown_name_message("attention backend", forced, backend_names()));
  return backends;
}

void AttentionStats::add_site(const AttentionSite& site, const AttentionRow& row) {
  if (site.kind == AttentionKind::kCross) return;
  // Calls of one layer in one step are few apart: its branches.
  for (auto known = sites_.rbegin(); known != sites_.rend() && known->step == site.step; ++known) {
    if (known->layer != site.layer) continue;
    known->pairs += row.pairs;
    known->dense_pairs += row.dense_pairs;
    return;
  }
  sites_.push_back({.step = site.step, .layer = site.layer, .pairs = row.pairs, .dense_pairs = row.dense_pairs});
}

void AttentionStats::add(const AttentionSite& site, const AttentionRow& row) {
  add_site(site, row);
  for (AttentionRow& known : rows_) {
    if (known.kind == row.kind && known.pattern == row.pattern && known.backend == row.backend &&
        known.note == row.note) {
      known.calls += row.calls;
      known.pairs += row.pairs;
      known.dense_pairs += row.dense_pairs;
      known.milliseconds += row.milliseconds;
      return;
    }
  }
  rows_.push_back(row);
}

AttentionEngine::AttentionEngine(const EngineOptions& options)
    : dense_(make_pattern("dense", ConfigNode::null())),
      pattern_(make_pattern(options.pattern, options.pattern_options)),
      backends_(make_backends(options.backend)) {}

AttentionEngine::~AttentionEngine() = default;

at::Tensor AttentionEngine::operator()(const AttentionSite& site, const AttentionInput& input) {
  STROBE_CHECK(input.q.dim() == 4 && input.k.dim() == 4 && input.k.sizes() == input.v.sizes() &&
                   input.q.size(3) == input.k.size(3) && input.q.size(1) == input.k.size(1),
               "attention: q {}, k {}, v {} axes do not fit [B, H, N, D]", input.q.dim(), input.k.dim(), input.v.dim());
  const Timer timer;
  AttentionProblem problem{.q = input.q,
                           .k = input.k,
                           .v = input.v,
                           .key_bias = input.key_bias,
                           .scale = 1.0 / std::sqrt(static_cast<double>(input.q.size(3)))};
  const bool is_cross = site.kind == AttentionKind::kCross;
  const AttentionPattern& pattern = is_cross ? *dense_ : *pattern_;
  const TorchScorer scorer;
  PatternState state;
  const AttentionPlan plan = pattern.plan(
      {.site = site, .q = problem.q, .k = problem.k, .key_bias = problem.key_bias, .scorer = scorer, .state = state});

  std::string reasons;
  for (const auto& backend : backends_) {
    if (std::string refusal = backend->refusal(problem); !refusal.empty()) {
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", backend->name(), refusal);
      continue;
    }
    AttentionOutput output = backend->run(problem);
    const double pairs = static_cast<double>(problem.q.size(0) * problem.q.size(1)) *
                         static_cast<double>(problem.q.size(2)) * static_cast<double>(problem.k.size(2));
    stats_.add(site, {.kind = is_cross                            ? "cross"
                              : site.kind == AttentionKind::kSelf ? "self"
                                                                  : "joint",
                      .pattern = pattern.name(),
                      .backend = backend->name(),
                      .note = plan.note.empty() ? reasons : plan.note,
                      .calls = 1,
                      .pairs = pairs,
                      .dense_pairs = pairs,
                      .milliseconds = timer.milliseconds()});
    return output.out;
  }
  throw UnsupportedError("no attention backend can do this: " + reasons);
}

}  // namespace strobe::attention
