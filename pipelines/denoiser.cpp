#include "pipelines/denoiser.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "pipelines/pattern_dump.h"

namespace strobe::pipelines {
namespace {

std::unique_ptr<sampling::Guider> make_guider_of(const Job& job) {
  return sampling::make_guider(job.request.guider, {.scale_per_stage = {job.guidance_scale, job.guidance_scale_2}});
}

}  // namespace

bool needs_negative(const Job& job) {
  for (const Branch branch : make_guider_of(job)->branches({.step = 0, .steps = 1})) {
    if (branch == Branch::kUncond) return true;
  }
  return false;
}

Denoiser::Denoiser(const models::ModelInfo& info, Parts& parts, const Job& job, const Progress& progress,
                   bool keeps_parts)
    : info_(info),
      parts_(parts),
      job_(job),
      progress_(progress),
      keeps_parts_(keeps_parts),
      cache_(caching::make_step_cache("none")),
      blocks_(*cache_),
      engine_({.rules = attention_rules(job.request),
               .backend = job.request.attention_backend,
               .cache_bytes = job.request.pattern_cache_mib << 20}),
      guider_(make_guider_of(job)) {
  if (!job.request.dump.empty()) engine_.set_observer(make_pattern_dump(job.request.dump));
}

void Denoiser::set_text(models::Conditioning positive, models::Conditioning negative) {
  positive_ = std::move(positive);
  negative_ = std::move(negative);
}

void Denoiser::restore(const Checkpoint& checkpoint) {
  forwards_ = checkpoint.forwards;
  engine_.set_states(checkpoint.attention_states);
  engine_.stats().restore(checkpoint.attention_rows, checkpoint.attention_sites);
  engine_.set_cache_counts(checkpoint.pattern_cache);
}

void Denoiser::use_stage(int stage) {
  if (stage == stage_) return;
  prepared_positive_.reset();
  prepared_negative_.reset();
  dit_ = &parts_.dit(stage, keeps_parts_);
  prepared_positive_ = dit_->prepare(positive_);
  if (negative_.text.states.defined()) prepared_negative_ = dit_->prepare(negative_);
  stage_ = stage;
}

at::Tensor Denoiser::operator()(const at::Tensor& x, float timestep, double sigma, int step) {
  use_stage(stage_of(info_, timestep));
  const sampling::GuidanceStep guidance{
      .step = step, .steps = job_.num_inference_steps, .sigma = sigma, .stage = stage_};
  std::vector<at::Tensor> predictions;
  for (const Branch branch : guider_->branches(guidance)) {
    models::ModelContext context{.attention = engine_,
                                 .blocks = blocks_,
                                 .branches = {branch},
                                 .stage = stage_,
                                 .step = step,
                                 .steps = job_.num_inference_steps,
                                 .seed = job_.request.seed,
                                 .sigma = sigma};
    if (!is_probed_) context.probe = progress_.probe;
    is_probed_ = true;
    predictions.push_back(
        dit_->predict({.latents = x,
                       .timesteps = at::full({1}, timestep, at::kFloat),
                       .conditioning = {branch == Branch::kCond ? prepared_positive_ : prepared_negative_}},
                      context)
            .to(at::kCPU));
    ++forwards_;
  }
  return guider_->combine(guidance, predictions);
}

}  // namespace strobe::pipelines
