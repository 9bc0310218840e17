// Patterns: which keys a query reads. Listed in patterns/patterns.inc.
//
// Contract  A pattern knows the site and the tensors of its call, never the model; it sees only its own heads, and one
//           batch row at a time. It is const and shared between calls, layers and runs. Same inputs and state, same
//           plan. It never drops text keys unless its options say so. A plan keeps at least one key block for every
//           query block (radial's parity mode may not). What the call's own rule makes dense says so in `note`.
// Order     `order(site)` reads no tensors; blocks of the plan are runs of its places, text last. q and k themselves
//           come as they lie: PatternCall says who stands where.
// State     What a method must remember from step to step (a frozen mask, a stored LSE). Owned by the run per
//           (sample, stage, layer, branch), never evicted, saved in checkpoints.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attention/options.h"
#include "attention/scorer.h"
#include "attention/site.h"
#include "core/block_layout.h"
#include "core/config_node.h"
#include "core/token_order.h"

namespace strobe::attention {

// How pooled pairs of a layout are computed; see kernels/block_attention/block_attention.h.
struct PoolingRule {
  bool has_multiplicity_bias = true;
  bool replicates_tail = false;
  int64_t replicated_size = 0;
};

// What a pattern decided for one call.
struct AttentionPlan {
  LayoutPtr layout;  // null: dense
  std::string note;  // why, when the method's own rule made the call dense; goes into the record
  PoolingRule pooling;
  bool wants_lse = false;  // observe() is to be called with the row log-sum-exps of this call
  double density = 1;      // of the layout; the engine fills it in
};

struct PatternOrders {
  std::shared_ptr<const TokenOrder> q;  // null: as the tokens come
  std::shared_ptr<const TokenOrder> k;
};

// [B, H, N, D] or [B, H, N] in an order; as it is where that is null.
at::Tensor in_order(const at::Tensor& tensor, const std::shared_ptr<const TokenOrder>& order);

struct PatternState {
  std::map<std::string, at::Tensor> tensors;
  LayoutPtr layout;

  int64_t bytes() const;
};

struct PatternCall {
  const AttentionSite& site;   // one branch
  const at::Tensor& q;         // [1, H, N, D], this pattern's heads
  const at::Tensor& k;         // [1, H, N, D]
  const at::Tensor& key_bias;  // [1, N] float32 in the order of k, or undefined; -inf hides a key
  const Scorer& scorer;
  PatternState& state;
  PatternOrders orders = {};  // at place p stands token raster()[p] of q or k; null: token p
};

// ConfigError naming head and row of an empty row, whose output would be 0.
void refuse_empty_rows(const std::string& method, const BlockLayout& layout);

// [B, Hk, N, D] with every key head repeated for the query heads that read it; as it is where there are as many.
at::Tensor key_for_each_head(const at::Tensor& k, int64_t query_heads);

// What a plan depends on besides the options and the grid.
struct PlanDependence {
  bool on_tensors = false;  // then also on sample, stage, layer and branch; planned anew at every call
  bool on_layer = false;
  bool on_state = false;  // the plan is kept in the state, not in the cache
};

struct NominalDensity {
  double density = 1;
  bool is_bound = false;  // the content may keep less
};

class AttentionPattern {
 public:
  virtual ~AttentionPattern() = default;
  virtual std::string name() const = 0;
  virtual PlanDependence dependence() const = 0;
  virtual PatternOrders order(const AttentionSite& site) const {
    (void)site;
    return {};
  }
  // Sites with one grid and one kind have one order; the engine keeps them.
  virtual int64_t order_kind(const AttentionSite& site) const {
    (void)site;
    return 0;
  }
  // q and k of the call may be undefined where !dependence().on_tensors && !on_state: then site.grid alone counts.
  virtual AttentionPlan plan(const PatternCall& call) const = 0;
  // After a call whose plan wanted the LSE, [1, H, N] float32 of the tokens of q. Returns the layout that the state now holds, or null.
  virtual LayoutPtr observe(const PatternCall& call, const at::Tensor& lse) const {
    (void)call, (void)lse;
    return nullptr;
  }
  // Density that the options ask for at a site, before any tensor is seen; nothing where the content decides.
  virtual std::optional<NominalDensity> nominal_density(const AttentionSite& site, int64_t heads) const {
    (void)site, (void)heads;
    return {};
  }
  // Looks at a run before any tensor is seen, at the first of its sites that is not dense: ConfigError for options that
  // its grid or steps cannot take. What a user should know of the others; empty: nothing.
  virtual std::string check_run(const AttentionSite& site) const {
    (void)site;
    return {};
  }
  // Bytes of the state of one layer and branch, at most.
  virtual int64_t state_bytes(const TokenGrid& grid, int64_t heads) const {
    (void)grid, (void)heads;
    return 0;
  }
};

struct PatternPreset {
  std::string name;      // wan_14b
  std::string options;   // "decay_factor=0.2,sink_frames=1,dense_steps=12"
  std::string sentence;  // where it is from
};

// A row of patterns.inc: patterns/<name>.cpp defines `PatternInfo <name>_pattern_info()`.
struct PatternInfo {
  std::string name;
  std::string sentence;
  std::string source;         // paper
  double dense_fraction = 0;  // of the first steps, the paper's value: the default of dense_steps
  int64_t dense_layers = 0;   // default
  std::vector<PatternPreset> presets;
  std::unique_ptr<AttentionPattern> (*make)(OptionReader& options) = nullptr;
};

const std::vector<PatternInfo>& pattern_infos();
std::vector<std::string> pattern_names();
// ConfigError with the nearest name.
const PatternInfo& pattern_info(const std::string& name);

// `options` is the method's own map (null: defaults), `preset` among them. ConfigError for an unknown method or option.
std::unique_ptr<AttentionPattern> make_pattern(const std::string& name, const ConfigNode& options);

}  // namespace strobe::attention
