// What a schedule of attention rules keeps of a run, before any tensor is seen.
//
// Contract  Layouts of methods that read no tensors are planned and counted; for the others the options' own density
//           counts, as a bound where the content may keep less, and as 1 with `is_known` off where they say nothing.
// Errors    ConfigError for rules that name steps, layers or heads beyond the run's and for options that its sizes
//           cannot take; UnsupportedError where what methods remember outgrows the bound.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/engine.h"
#include "attention/schedule.h"
#include "core/token_grid.h"

namespace strobe::pipelines {

struct AttentionSiteSpace {
  TokenGrid grid;
  int64_t layers = 0, heads = 0;
  std::vector<double> sigmas;  // of each step
  std::vector<int> stages;     // expert of each step
  int64_t branches = 1;        // of guidance
  int64_t cache_bytes = attention::kDefaultCacheBytes;
};

struct RulePlan {
  std::string method, options;
  double share = 0;                          // of all (step, layer, head) that the rule attends to
  double dense_share = 0;                    // of those, where its own schedule is dense
  double density = 1;                        // mean where it is not dense
  bool is_known = true;                      // otherwise the content decides, and 1 is counted
  bool is_bound = false;                     // the content may keep less
  int64_t query_blocks = 0, key_blocks = 0;  // of a planned layout; 0: depends on the tensors
  int64_t kept_blocks = 0;                   // of one head
  double plan_ms = 0;                        // of a layout that reads no tensors
  std::vector<std::string> dense_reasons;
};

struct AttentionPlanSummary {
  double density = 1;  // mean over steps, layers and heads
  bool is_known = true, is_bound = false;
  std::vector<RulePlan> rules;  // those of the request, in order; what none matches is dense
  int64_t state_bytes = 0;      // that the methods remember at most, all layers, experts and branches
  std::vector<std::string> warnings;

  bool is_sparse() const;
};

AttentionPlanSummary plan_attention(const std::vector<attention::AttentionRule>& rules,
                                    const AttentionSiteSpace& space);

}  // namespace strobe::pipelines
