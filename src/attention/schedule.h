// The schedule of a run: which method attends where.
//
// Contract  A list of rules; the last rule that matches a site (step, layer, head, sigma) wins, what no rule matches is
//           dense. `steps`, `layers`, `heads` and `sigma_max` say where a rule matches; `dense_steps`, `dense_layers`,
//           `dense_last_steps` and `min_tokens` say where the rule that won attends densely. The first two default to
//           the method's paper.
// Errors    ConfigError for unknown methods, options and presets, with the nearest name, and for rules that name what a
//           run has not.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attention/options.h"
#include "attention/pattern.h"

namespace strobe::attention {

// What a run has for rules to name.
struct RunRange {
  int64_t steps = 0, layers = 0, heads = 0;
};

struct AttentionRule {
  std::string method;
  std::string options;  // all in force, as text: "block_size=64,decay_factor=1,..."
  std::shared_ptr<const AttentionPattern> pattern;
  IndexSet steps, layers, heads;
  std::optional<double> sigma_max;
  std::optional<int64_t> dense_steps;  // given; otherwise the share below
  double dense_fraction = 0;           // of the steps, rounded down
  int64_t dense_last_steps = 0;
  int64_t dense_layers = 0;
  int64_t refresh_every_steps = 0;  // 0: as the method says
  bool shares_branches = false;
  int64_t block_tokens = 0;      // the larger of query and key block; 0: the method has none of one size
  bool is_default_block = true;  // it is the method's own, given or not
  int64_t min_tokens = 0;

  bool is_dense() const { return method == "dense"; }
  int64_t dense_steps_of(int64_t steps_of_run) const;
  bool matches(const AttentionSite& site, int64_t head) const;
  // Why the rule attends densely at a site that it matches, or empty.
  std::string dense_reason(const AttentionSite& site) const;
  // ConfigError where `steps`, `layers` or `heads` names one that the run has not.
  void check_range(const RunRange& run) const;
  // A block that holds every token drops nothing: ConfigError where it was asked for, a warning where it is the method's
  // own. Empty: there are several blocks.
  std::string check_block(int64_t tokens) const;
  // UnsupportedError where the states of all layers and branches, for so many heads, outgrow the bound.
  void check_states(const AttentionSite& site, int64_t heads, int64_t bound_bytes) const;
};

// "radial:decay_factor=1,layers=0/2/4" or a map {method: radial, decay_factor: 1}, or {method, options: {...}}.
AttentionRule make_rule(const ConfigNode& node);
// A text, a map, or a list of them; null: no rule (dense everywhere).
std::vector<AttentionRule> make_rules(const ConfigNode& node);

// What the options of a method are, the common ones included.
std::vector<OptionDescription> describe_options(const std::string& method);

}  // namespace strobe::attention
