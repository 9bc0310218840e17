// The schedule of a run: which method attends where.
//
// Contract  A list of rules; the last rule that matches a site (step, layer, head, sigma) wins, what no rule matches is
//           dense. `steps`, `layers`, `heads` and `sigma_max` say where a rule matches; `dense_steps`, `dense_layers`,
//           `dense_last_steps` and `min_tokens` say where the rule that won attends densely. The first two default to
//           the method's paper.
// Errors    ConfigError for unknown methods, options and presets, with the nearest name.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attention/options.h"
#include "attention/pattern.h"

namespace strobe::attention {

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
  int64_t min_tokens = 0;

  bool is_dense() const { return method == "dense"; }
  int64_t dense_steps_of(int64_t steps_of_run) const;
  bool matches(const AttentionSite& site, int64_t head) const;
  // Why the rule attends densely at a site that it matches, or empty.
  std::string dense_reason(const AttentionSite& site) const;
};

// "radial:decay_factor=1,layers=0/2/4" or a map {method: radial, decay_factor: 1}, or {method, options: {...}}.
AttentionRule make_rule(const ConfigNode& node);
// A text, a map, or a list of them; null: no rule (dense everywhere).
std::vector<AttentionRule> make_rules(const ConfigNode& node);

// What the options of a method are, the common ones included.
std::vector<OptionDescription> describe_options(const std::string& method);

}  // namespace strobe::attention
