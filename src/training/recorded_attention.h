// Attention with gradients: what a model calls in training in the engine's place.
//
// Contract  f(site, input) is what the engine gives under the rules of the run. Where autograd records q, k or v it gets
//           gradients of them through what the engine's kernels computed: the layouts, orders and pooled levels of each
//           head; what to keep is decided as in inference and has no gradient. Elsewhere it is the engine as it is.
//           Dense calls (cross attention, and sites that no sparse rule reaches) go to the engine's backends directly:
//           all batch rows in one call.
// State     As the engine's: of methods by (sample, stage, layer, branch). The engine's observer is taken.
// Cost      the backward pass recomputes the scores: five products of matrices for the forward pass's two.
// Threads   One thread calls; backward may run on another one, but not at the same time.
// Errors    UnsupportedError for gradients of a key bias, gradients of gradients, and sparse methods on a GPU, where dense
//           calls go to LibTorch's scaled_dot_product_attention.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "attention/engine.h"

namespace strobe::training {

// What ran, by what it was.
struct RecordedRow {
  std::string kind;     // "self", "cross", "joint"
  std::string pattern;  // "radial", "radial+dense" where heads or batch rows differ
  std::string forward;  // kernels
  std::string
      backward;  // "dense_blocks", "gathered_blocks", "gathered_blocks+dense_blocks", "torch_matmul", "torch_sdpa"
  int64_t calls = 0;
  int64_t backward_calls = 0;  // not counted of LibTorch's own
  double forward_ms = 0;       // selection is in it
  double backward_ms = 0;
};

// The rows of all calls; each keeps its place, which its backward passes write to.
class RecordedStats {
 public:
  // The row of the same names.
  RecordedRow& row(const RecordedRow& names);
  std::vector<RecordedRow> rows() const;

 private:
  std::vector<std::unique_ptr<RecordedRow>> rows_;
};

class RecordedAttention final : public attention::AttentionFunction {
 public:
  explicit RecordedAttention(attention::EngineOptions options);

  at::Tensor operator()(const attention::AttentionSite& site, const attention::AttentionInput& input) override;

  attention::AttentionEngine& engine() { return engine_; }
  // Recorded calls only; the engine's own are in its stats.
  std::vector<RecordedRow> rows() const { return stats_->rows(); }

 private:
  bool is_dense(const attention::AttentionSite& site, int64_t heads) const;

  attention::BackendList backends_;
  attention::AttentionEngine engine_;
  std::shared_ptr<RecordedStats> stats_;
};

}  // namespace strobe::training
