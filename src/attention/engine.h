// Softmax attention under the rules of a run.
//
// Contract  `engine(site, input)` gives softmax(scale q k^T + key_bias) v under the rules of the run, in the order of the
//           tokens given. Self and joint attention go through the rules; cross attention is always dense. Batch rows
//           are planned one by one, heads with the same rule together; a method sees only its heads. The first backend
//           that can do a problem does it; a forced one that cannot is an UnsupportedError with its reason. Nothing
//           falls back silently: what ran is in stats().
// State     Plans live in a bounded cache, states of methods (frozen masks) in the engine: one engine a clip, nothing is
//           static. states() and set_states() carry them through a checkpoint.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attention/attention_function.h"
#include "attention/backend.h"
#include "attention/pattern.h"
#include "attention/pattern_cache.h"
#include "attention/schedule.h"
#include "attention/site.h"
#include "attention/stats.h"

namespace strobe::attention {

inline constexpr int64_t kDefaultCacheBytes = int64_t{2048} << 20;

struct EngineOptions {
  std::vector<AttentionRule> rules;  // empty: dense
  std::string backend = "auto";
  int64_t cache_bytes = kDefaultCacheBytes;  // of plans; and of states, which are refused above it
};

// One group of heads of one batch row, after it was computed; for dumps and `pattern run`.
struct AttentionEvent {
  const AttentionSite& site;  // one branch
  const std::string& method;
  const std::string& kernel;
  const std::vector<int64_t>& heads;
  int64_t all_heads;  // of the call, other groups included
  const AttentionPlan& plan;
  LayoutPtr layout;  // of the plan, or what the method now holds for later calls; null: dense
  const PatternOrders& orders;
  at::Tensor out;  // [1, group, N, D], in the order of the tokens given
  at::Tensor lse;  // [1, group, N] float32, likewise; undefined unless the observer wants it
  double density = 1;
  double selection_ms = 0;
  double milliseconds = 0;
};

struct AttentionObserver {
  std::function<void(const AttentionEvent& event)> on_call;
  bool wants_lse = false;
};

// ShapeError where q, k and v do not fit each other.
void check_axes(const AttentionInput& input);

class AttentionEngine final : public AttentionFunction {
 public:
  explicit AttentionEngine(EngineOptions options = {});
  ~AttentionEngine() override;

  at::Tensor operator()(const AttentionSite& site, const AttentionInput& input) override;

  void set_observer(AttentionObserver observer) { observer_ = std::move(observer); }

  const AttentionStats& stats() const { return stats_; }
  AttentionStats& stats() { return stats_; }
  const CacheCounts& cache_counts() const { return cache_.counts(); }
  void set_cache_counts(const CacheCounts& counts) { cache_.counts() = counts; }
  const PatternCache& cache() const { return cache_; }
  const std::vector<AttentionRule>& rules() const { return options_.rules; }

  // States by name, as tensors that a file can hold.
  std::map<std::string, at::Tensor> states() const;
  void set_states(const std::map<std::string, at::Tensor>& tensors);
  // For tests and `pattern run`: what a method finds in its state before the call.
  PatternState& state(const AttentionSite& site, size_t rule) { return states_[state_key(site, rule)]; }

 private:
  struct Group {
    int64_t rule = -1;  // -1: none, dense
    std::vector<int64_t> heads;
  };
  struct Call;
  struct Orders {
    PatternOrders asked;  // for records
    PatternOrders used;   // null where it would change nothing
  };

  std::vector<Group> group_heads(const AttentionSite& site, int64_t heads) const;
  void run_row(const AttentionSite& site, const AttentionInput& input, at::Tensor out);
  void run_group(const AttentionSite& site, const AttentionInput& input, const Group& group, int64_t all_heads,
                 at::Tensor out);
  const Orders& orders_of(const Call& call);
  AttentionPlan plan(Call& call);
  AttentionPlan plan_now(Call& call);
  PatternCall pattern_call(Call& call);
  void compute(Call& call, at::Tensor& out);
  void run_dense(const AttentionSite& site, const AttentionInput& input, at::Tensor& out);
  PatternState& state_of(Call& call);
  static std::string state_key(const AttentionSite& site, size_t rule);

  EngineOptions options_;
  BackendList backends_;
  std::unique_ptr<Scorer> scorer_;
  PatternCache cache_;
  std::map<std::string, Orders> orders_;
  std::map<std::string, PatternState> states_;
  int64_t state_bytes_ = 0;
  AttentionStats stats_;
  AttentionObserver observer_;
};

}  // namespace strobe::attention
