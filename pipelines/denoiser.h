// Turns a sampler's question "velocity at x?" into forwards of the right expert and branches.
#pragma once

#include <memory>
#include <vector>

#include "attention/engine.h"
#include "caching/step_cache.h"
#include "models/block_runner.h"
#include "pipelines/checkpoint.h"
#include "pipelines/parts.h"
#include "pipelines/pipeline.h"
#include "sampling/guider.h"

namespace strobe::pipelines {

class Denoiser {
 public:
  // `keeps_parts`: another clip will need the experts again. All are borrowed.
  Denoiser(const models::ModelInfo& info, Parts& parts, const Job& job, const Progress& progress, bool keeps_parts);

  void set_text(models::Conditioning positive, models::Conditioning negative);

  at::Tensor operator()(const at::Tensor& x, float timestep, double sigma, int step);

  attention::AttentionEngine& engine() { return engine_; }
  int64_t forwards() const { return forwards_; }
  // Counts and states of the run that the checkpoint is of.
  void restore(const Checkpoint& checkpoint);
  // The part whose weights made the last prediction: "transformer", "transformer_2".
  std::string part() const { return stage_ <= 0 ? "transformer" : "transformer_2"; }

 private:
  void use_stage(int stage);

  const models::ModelInfo& info_;
  Parts& parts_;
  const Job& job_;
  const Progress& progress_;
  bool keeps_parts_;
  std::unique_ptr<caching::StepCache> cache_;
  models::BlockRunner blocks_;
  attention::AttentionEngine engine_;
  std::unique_ptr<sampling::Guider> guider_;
  const models::DiTModel* dit_ = nullptr;
  models::Conditioning positive_, negative_;
  std::shared_ptr<models::PreparedConditioning> prepared_positive_, prepared_negative_;
  int stage_ = -1;
  int64_t forwards_ = 0;
  bool is_probed_ = false;
};

// Whether a job's guidance asks for the negative prompt at all.
bool needs_negative(const Job& job);

}  // namespace strobe::pipelines
