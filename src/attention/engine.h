// The only attention call a model makes.
//
// Contract  `engine(site, input)` gives softmax(scale q k^T + key_bias) v of the site's pattern, in the order of the
//           tokens given. Self and joint attention go to the pattern of the run; cross attention is always dense.
//           The first backend that can do a problem does it; a forced one that cannot is an UnsupportedError with its
//           reason. Nothing falls back silently: what ran is in stats().
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "attention/backend.h"
#include "attention/pattern.h"
#include "attention/site.h"
#include "attention/stats.h"

namespace strobe::attention {

struct AttentionInput {
  at::Tensor q;         // [B, H, Nq, D] fp32 or bf16
  at::Tensor k;         // [B, H, Nk, D]
  at::Tensor v;         // [B, H, Nk, D]
  at::Tensor key_bias;  // [B, Nk] float32 or undefined; see AttentionProblem
};

struct EngineOptions {
  std::string pattern = "dense";
  ConfigNode pattern_options;
  std::string backend = "auto";
};

class AttentionEngine {
 public:
  explicit AttentionEngine(const EngineOptions& options = {});
  ~AttentionEngine();
  AttentionEngine(const AttentionEngine&) = delete;
  AttentionEngine& operator=(const AttentionEngine&) = delete;

  at::Tensor operator()(const AttentionSite& site, const AttentionInput& input);  // [B, H, Nq, D]

  const AttentionStats& stats() const { return stats_; }
  void clear_stats() { stats_.clear(); }

 private:
  std::unique_ptr<AttentionPattern> dense_;
  std::unique_ptr<AttentionPattern> pattern_;
  std::vector<std::unique_ptr<AttentionBackend>> backends_;
  AttentionStats stats_;
};

}  // namespace strobe::attention
