#include "pipelines/plan.h"

#include "core/torch.h"
// After the precompiled header.
#include "attention/backend.h"
#include "attention/layout_tensors.h"
#include "core/error.h"
#include "sampling/guider.h"
#include "sampling/sampler.h"

namespace strobe::pipelines {
namespace {

// Latents of the sampler and the guider that live at once: the sample, its past, predictions of the branches.
constexpr int64_t kLatentCopies = 8;

// Steps, branches and prompts.
void count_forwards(Plan& plan) {
  const Job& job = plan.job;
  const auto guider =
      sampling::make_guider(job.request.guider, {.scale_per_stage = {job.guidance_scale, job.guidance_scale_2}});
  const sampling::Schedule schedule = make_schedule(job, sampling::make_sampler(job.scheduler)->default_spacing());
  AttentionSiteSpace space{.grid = plan.work.forward.grid,
                           .layers = plan.work.forward.layers,
                           .heads = plan.work.forward.heads,
                           .cache_bytes = job.request.pattern_cache_mib << 20};
  plan.stage_steps.assign(static_cast<size_t>(plan.info.stages), 0);
  for (int step = 0; step < schedule.steps(); ++step) {
    const int stage = stage_of(plan.info, schedule.timesteps[static_cast<size_t>(step)]);
    ++plan.stage_steps[static_cast<size_t>(stage)];
    space.sigmas.push_back(schedule.sigmas[static_cast<size_t>(step)]);
    space.stages.push_back(stage);
    const auto branches = guider->branches(
        {.step = step, .steps = schedule.steps(), .sigma = schedule.sigmas[static_cast<size_t>(step)], .stage = stage});
    plan.forwards += static_cast<int64_t>(branches.size());
    space.branches = std::max(space.branches, static_cast<int64_t>(branches.size()));
    for (const Branch branch : branches) {
      if (branch == Branch::kUncond) plan.prompts = 2;
    }
  }
  plan.attention = plan_attention(attention_rules(job.request), space);
}

// A forced kernel that cannot run is refused with its reason; `auto` always finds one.
void check_backend(const Plan& plan, const Device& device) {
  const models::ForwardWork& forward = plan.work.forward;
  const std::string& forced = plan.job.request.attention_backend;
  if (forced == "auto") return;
  const auto backends = attention::make_backends(forced);
  // Sizes without memory behind them.
  const at::Tensor sizes =
      at::empty({1, 1, 1, forward.head_width}, at::TensorOptions(device.device).dtype(device.dtype))
          .expand({1, forward.heads, forward.grid.tokens(), forward.head_width});
  attention::AttentionProblem problem{.q = sizes, .k = sizes, .v = sizes};
  std::string reasons;
  attention::choose_backend(backends, problem, reasons);
  if (!plan.attention.is_sparse()) return;
  const LayoutPtr layout = attention::one_block(forward.grid.tokens());
  problem.layout = layout.get();
  reasons.clear();
  attention::choose_backend(backends, problem, reasons);
}

PlanFlops sum_flops(const Plan& plan) {
  const auto forwards = static_cast<double>(plan.forwards), prompts = static_cast<double>(plan.prompts);
  const models::ForwardWork& forward = plan.work.forward;
  double experts = 0;
  for (const int steps : plan.stage_steps) experts += steps > 0 ? 1 : 0;
  PlanFlops flops;
  flops.self_attention = forwards * forward.self_attention_flops * plan.attention.density;
  flops.cross_attention = forwards * forward.cross_attention_flops;
  flops.linear = forwards * forward.linear_flops + experts * prompts * forward.prepare_flops;
  flops.text = prompts * plan.work.text.flops;
  for (const models::DecodeLevel& level : plan.work.decode.levels) flops.vae += level.flops;
  return flops;
}

void estimate_memory(Plan& plan, int64_t element_bytes) {
  int64_t latent_bytes = 4;
  for (const int64_t size : plan.job.latent_shape) latent_bytes *= size;
  plan.text = {plan.work.text.weight_bytes, plan.work.text.activation_bytes};
  plan.denoise = {
      plan.info.dit_parameters * element_bytes,
      plan.work.forward.activation_bytes + plan.prompts * plan.work.forward.prompt_bytes + kLatentCopies * latent_bytes,
      plan.attention.state_bytes};
  plan.decode = {plan.info.vae_parameters * 4, plan.work.decode.activation_bytes + latent_bytes};
}

PlanSeconds estimate_time(const Plan& plan) {
  PlanSeconds seconds;
  seconds.text = plan.flops.text / plan.rates.linear;
  seconds.denoise = plan.flops.linear / plan.rates.linear +
                    (plan.flops.self_attention + plan.flops.cross_attention) / plan.rates.attention;
  for (const models::DecodeLevel& level : plan.work.decode.levels) {
    seconds.decode += level.run_flops / plan.rates.convolution;
  }
  return seconds;
}

}  // namespace

int64_t Plan::peak_bytes() const { return std::max({text.total_bytes(), denoise.total_bytes(), decode.total_bytes()}); }

double Plan::self_attention_share() const {
  const double dense = static_cast<double>(forwards) * work.forward.self_attention_flops / rates.attention;
  const double rest = seconds.denoise - flops.self_attention / rates.attention;
  return dense + rest > 0 ? dense / (dense + rest) : 0;
}

double Plan::speedup_bound() const {
  const double share = self_attention_share();
  return 1 / (1 - share + share * attention.density);
}

PlanKey plan_key(const Job& job) {
  std::vector<std::string> names = job.request.attention;
  names.insert(names.end(), {job.request.attention_backend, job.request.sigma_spacing, job.scheduler});
  return {job.latent_shape,
          {job.guidance_scale, job.guidance_scale_2, job.flow_shift},
          job.num_inference_steps,
          names,
          job.request.pattern_cache_mib};
}

Plan make_plan(const models::ModelArchitecture& model, const Request& request, const PlanOptions& options,
               const Rates& rates) {
  Plan plan;
  plan.info = model.info();
  plan.job = resolve_clip(request, plan.info);
  plan.text_tokens = options.text_tokens > 0 ? options.text_tokens : plan.info.padded_text_tokens;
  if (plan.text_tokens > plan.info.padded_text_tokens) {
    throw ConfigError(fmt::format("--text-tokens {}: {} takes at most {}", plan.text_tokens, plan.info.name,
                                  plan.info.padded_text_tokens));
  }
  plan.rates = rates;
  const auto element_bytes = static_cast<int64_t>(c10::elementSize(options.device.dtype));
  plan.work = model.compute_work({.num_frames = plan.job.num_frames,
                                  .height = plan.job.height,
                                  .width = plan.job.width,
                                  .text_tokens = plan.text_tokens,
                                  .element_bytes = element_bytes});
  count_forwards(plan);
  check_backend(plan, options.device);
  plan.weights = model.stored_parts();
  plan.flops = sum_flops(plan);
  estimate_memory(plan, element_bytes);
  plan.seconds = estimate_time(plan);
  return plan;
}

}  // namespace strobe::pipelines
