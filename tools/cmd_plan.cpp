// strobe plan: what a run costs, before any weight is read.
#include "core/torch.h"
// After the precompiled header.
#include <cstdio>

#include "core/error.h"
#include "core/log.h"
#include "core/output_file.h"
#include "pipelines/calibration.h"
#include "pipelines/plan.h"
#include "tools/app.h"
#include "weights/json.h"

namespace strobe::tools {
namespace {

using pipelines::Plan;
using pipelines::StageMemory;

double gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

std::string duration(double seconds) {
  if (seconds < 120) return fmt::format("{:.1f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.1f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

const char* dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "fp32";
    case at::kBFloat16:
      return "bf16";
    case at::kHalf:
      return "fp16";
    default:
      return at::toString(dtype);
  }
}

ConfigNode integer(int64_t value) { return ConfigNode::integer(value); }
ConfigNode number(double value) { return ConfigNode::number(value); }
ConfigNode string(const std::string& value) { return ConfigNode::string(value); }

// "0.310", "at most 0.310", "1.000 counted, the content decides".
std::string density_text(double density, bool is_known, bool is_bound) {
  return fmt::format("{}{:.3f}{}", is_known && is_bound ? "at most " : "", density,
                     is_known ? "" : " counted, the content decides");
}
std::string density_text(const pipelines::AttentionPlanSummary& a) {
  return density_text(a.density, a.is_known, a.is_bound);
}

std::string text_attention(const Plan& plan) {
  std::string text;
  for (const pipelines::RulePlan& rule : plan.attention.rules) {
    if (rule.method == "dense" && plan.attention.rules.size() == 1) return "";
    text += fmt::format("  {:<8} at {:.1f} % of steps, layers and heads", rule.method, 100 * rule.share);
    if (rule.dense_share > 0) text += fmt::format(", of these {:.1f} % dense", 100 * rule.dense_share);
    for (const std::string& reason : rule.dense_reasons) text += fmt::format(" ({})", reason);
    if (rule.dense_share < 1 && rule.share > 0) {
      text += fmt::format("; elsewhere density {}", density_text(rule.density, rule.is_known, rule.is_bound));
    }
    if (rule.key_blocks > 0) {
      text += fmt::format("; {} of {} x {} blocks a head, planned in {:.1f} ms", rule.kept_blocks, rule.query_blocks,
                          rule.key_blocks, rule.plan_ms);
    }
    text += fmt::format("\n           {}\n", rule.options);
  }
  if (!text.empty()) {
    text += fmt::format("  bound    {:.2f}x on the denoising time: self attention is {:.1f} % of it where dense\n",
                        plan.speedup_bound(), 100 * plan.self_attention_share());
  }
  return text;
}

ConfigNode json_attention(const Plan& plan) {
  const models::ForwardWork& forward = plan.work.forward;
  ConfigNode::List rules;
  for (const pipelines::RulePlan& rule : plan.attention.rules) {
    rules.push_back(ConfigNode::map({{"method", string(rule.method)},
                                     {"options", string(rule.options)},
                                     {"share", number(rule.share)},
                                     {"dense_share", number(rule.dense_share)},
                                     {"density", number(rule.density)},
                                     {"is_known", ConfigNode::boolean(rule.is_known)},
                                     {"is_bound", ConfigNode::boolean(rule.is_bound)},
                                     {"query_blocks", integer(rule.query_blocks)},
                                     {"key_blocks", integer(rule.key_blocks)},
                                     {"kept_blocks", integer(rule.kept_blocks)},
                                     {"plan_ms", number(rule.plan_ms)}}));
  }
  return ConfigNode::map({{"method", string(pipelines::attention_methods_text(plan.job.request))},
                          {"density", number(plan.attention.density)},
                          {"is_known", ConfigNode::boolean(plan.attention.is_known)},
                          {"is_bound", ConfigNode::boolean(plan.attention.is_bound)},
                          {"rules", ConfigNode::list(std::move(rules))},
                          {"self_attention_share", number(plan.self_attention_share())},
                          {"speedup_bound", number(plan.speedup_bound())},
                          {"layers", integer(forward.layers)},
                          {"heads", integer(forward.heads)},
                          {"head_width", integer(forward.head_width)}});
}

std::string text_clip(const Plan& plan) {
  const pipelines::Job& job = plan.job;
  const models::ForwardWork& forward = plan.work.forward;
  std::string text = fmt::format("{}, {}; no weights read\n\n", plan.info.name,
                                 plan.info.folder.empty() ? "a known architecture" : plan.info.folder.string());
  text += fmt::format("clip       {} frames {}x{} at {} fps\n", job.num_frames, job.width, job.height, job.fps);
  text += fmt::format("sampling   {} steps of {}, guidance {}, shift {}: {} forwards of the transformer\n",
                      job.num_inference_steps, job.scheduler, job.guidance_scale, job.flow_shift, plan.forwards);
  if (plan.stage_steps.size() == 2) {
    text +=
        fmt::format("experts    {} steps of high noise, {} of low noise\n", plan.stage_steps[0], plan.stage_steps[1]);
  }
  text += fmt::format("tokens     {} x {} x {} = {} of the video, {} of each text{}\n", forward.grid.frames,
                      forward.grid.rows, forward.grid.cols, forward.grid.video_tokens(), plan.text_tokens,
                      plan.text_tokens == plan.info.padded_text_tokens ? " (the most; --text-tokens)" : "");
  text += fmt::format("attention  {}, density {}; {} layers, {} heads of {}\n",
                      pipelines::attention_methods_text(job.request), density_text(plan.attention), forward.layers,
                      forward.heads, forward.head_width);
  return text + text_attention(plan);
}

std::string text_flops(const Plan& plan) {
  const pipelines::PlanFlops& f = plan.flops;
  std::string text = "\nFLOPs                     TFLOP     share\n";
  const std::pair<const char*, double> rows[] = {{"self attention", f.self_attention},
                                                 {"cross attention", f.cross_attention},
                                                 {"linear layers", f.linear},
                                                 {"text encoder", f.text},
                                                 {"VAE decode", f.vae},
                                                 {"total", f.total()}};
  for (const auto& [name, flops] : rows) {
    text += fmt::format("  {:<16} {:>12.3f}  {:>6.1f} %\n", name, flops / 1e12, 100 * flops / f.total());
  }
  text += "\nVAE decode, a level       TFLOP    as run\n";
  for (const models::DecodeLevel& level : plan.work.decode.levels) {
    text += fmt::format("  {:<16} {:>12.3f}  {:>8.3f}\n", level.name, level.flops / 1e12, level.run_flops / 1e12);
  }
  return text;
}

std::string text_memory(const Plan& plan) {
  std::string text = "\nweights as stored     parameters        GB\n";
  for (const models::StoredPart& part : plan.weights) {
    std::string dtypes;
    for (const auto& [dtype, bytes] : part.bytes) {
      const double percent = 100.0 * static_cast<double>(bytes) / static_cast<double>(part.total_bytes());
      dtypes += part.bytes.size() == 1 ? dtype_name(dtype) : fmt::format("{} {:.0f} %  ", dtype_name(dtype), percent);
    }
    text += fmt::format("  {:<14} {:>15} {:>9.2f}  {}\n", part.name, part.parameters, gigabytes(part.total_bytes()),
                        dtypes);
  }
  text += "\nmemory, estimated     weights  activations  remembered     total (GB)\n";
  const std::pair<const char*, const StageMemory*> rows[] = {
      {"text", &plan.text}, {"denoise", &plan.denoise}, {"decode", &plan.decode}};
  for (const auto& [name, memory] : rows) {
    text += fmt::format("  {:<16} {:>10.2f} {:>12.2f} {:>11.2f} {:>9.2f}\n", name, gigabytes(memory->weight_bytes),
                        gigabytes(memory->activation_bytes), gigabytes(memory->state_bytes),
                        gigabytes(memory->total_bytes()));
  }
  return text + fmt::format("  {:<16} {:>45.2f}\n", "peak", gigabytes(plan.peak_bytes()));
}

std::string text_time(const Plan& plan, const pipelines::Device& device) {
  const pipelines::Rates& r = plan.rates;
  std::string text = fmt::format(
      "\ntime, estimated from products alone at rates measured here in {:.2f} s\n"
      "  {} on {}, {} threads: linear {:.0f}, attention {:.0f} GFLOP/s; fp32 convolution {:.0f} GFLOP/s\n",
      r.seconds, dtype_name(device.dtype), device.device.str(), at::get_num_threads(), r.linear / 1e9,
      r.attention / 1e9, r.convolution / 1e9);
  const double steps = plan.job.num_inference_steps;
  text += fmt::format("  text {}, denoise {} ({} a step), decode {}: {}\n", duration(plan.seconds.text),
                      duration(plan.seconds.denoise), duration(plan.seconds.denoise / steps),
                      duration(plan.seconds.decode), duration(plan.seconds.total()));
  return text;
}

ConfigNode json_clip(const Plan& plan) {
  const pipelines::Job& job = plan.job;
  ConfigNode::List adjustments;
  for (const std::string& text : job.adjustments) adjustments.push_back(string(text));
  return ConfigNode::map({{"num_frames", integer(job.num_frames)},
                          {"height", integer(job.height)},
                          {"width", integer(job.width)},
                          {"fps", integer(job.fps)},
                          {"num_inference_steps", integer(job.num_inference_steps)},
                          {"scheduler", string(job.scheduler)},
                          {"guidance_scale", number(job.guidance_scale)},
                          {"guidance_scale_2", number(job.guidance_scale_2)},
                          {"flow_shift", number(job.flow_shift)},
                          {"adjustments", ConfigNode::list(std::move(adjustments))}});
}

ConfigNode json_tokens(const Plan& plan) {
  const models::ForwardWork& forward = plan.work.forward;
  ConfigNode::List stages;
  for (const int steps : plan.stage_steps) stages.push_back(integer(steps));
  return ConfigNode::map({{"frames", integer(forward.grid.frames)},
                          {"rows", integer(forward.grid.rows)},
                          {"cols", integer(forward.grid.cols)},
                          {"video", integer(forward.grid.video_tokens())},
                          {"text", integer(plan.text_tokens)},
                          {"prompts", integer(plan.prompts)},
                          {"forwards", integer(plan.forwards)},
                          {"steps_by_expert", ConfigNode::list(std::move(stages))}});
}

ConfigNode json_flops(const Plan& plan) {
  const pipelines::PlanFlops& f = plan.flops;
  ConfigNode flops = ConfigNode::map();
  ConfigNode shares = ConfigNode::map();
  const std::pair<const char*, double> rows[] = {{"self_attention", f.self_attention},
                                                 {"cross_attention", f.cross_attention},
                                                 {"linear", f.linear},
                                                 {"text", f.text},
                                                 {"vae", f.vae}};
  for (const auto& [name, value] : rows) {
    flops.set(name, number(value));
    shares.set(name, number(value / f.total()));
  }
  flops.set("total", number(f.total()));
  flops.set("shares", std::move(shares));
  ConfigNode::List levels;
  for (const models::DecodeLevel& level : plan.work.decode.levels) {
    levels.push_back(ConfigNode::map(
        {{"name", string(level.name)}, {"flops", number(level.flops)}, {"run_flops", number(level.run_flops)}}));
  }
  flops.set("vae_levels", ConfigNode::list(std::move(levels)));
  return flops;
}

ConfigNode json_weights(const Plan& plan) {
  ConfigNode::List parts;
  for (const models::StoredPart& part : plan.weights) {
    ConfigNode dtypes = ConfigNode::map();
    for (const auto& [dtype, bytes] : part.bytes) dtypes.set(dtype_name(dtype), integer(bytes));
    parts.push_back(ConfigNode::map({{"part", string(part.name)},
                                     {"parameters", integer(part.parameters)},
                                     {"bytes", integer(part.total_bytes())},
                                     {"bytes_by_dtype", std::move(dtypes)}}));
  }
  return ConfigNode::list(std::move(parts));
}

ConfigNode json_memory(const Plan& plan) {
  ConfigNode memory = ConfigNode::map();
  const std::pair<const char*, const StageMemory*> rows[] = {
      {"text", &plan.text}, {"denoise", &plan.denoise}, {"decode", &plan.decode}};
  for (const auto& [name, stage] : rows) {
    memory.set(name, ConfigNode::map({{"weight_bytes", integer(stage->weight_bytes)},
                                      {"activation_bytes", integer(stage->activation_bytes)},
                                      {"pattern_state_bytes", integer(stage->state_bytes)}}));
  }
  memory.set("peak_bytes", integer(plan.peak_bytes()));
  return memory;
}

ConfigNode json_plan(const Plan& plan, const pipelines::Device& device) {
  return ConfigNode::map({{"schema", integer(1)},
                          {"model", string(plan.info.name)},
                          {"folder", plan.info.folder.empty() ? ConfigNode::null() : string(plan.info.folder.string())},
                          {"device", string(device.device.str())},
                          {"dtype", string(dtype_name(device.dtype))},
                          {"threads", integer(at::get_num_threads())},
                          {"clip", json_clip(plan)},
                          {"tokens", json_tokens(plan)},
                          {"attention", json_attention(plan)},
                          {"flops", json_flops(plan)},
                          {"weights", json_weights(plan)},
                          {"memory_estimate", json_memory(plan)},
                          {"rates_flops_per_s", ConfigNode::map({{"linear", number(plan.rates.linear)},
                                                                 {"attention", number(plan.rates.attention)},
                                                                 {"convolution", number(plan.rates.convolution)}})},
                          {"time_estimate_s", ConfigNode::map({{"text", number(plan.seconds.text)},
                                                               {"denoise", number(plan.seconds.denoise)},
                                                               {"decode", number(plan.seconds.decode)},
                                                               {"total", number(plan.seconds.total())}})}});
}

std::unique_ptr<models::ModelArchitecture> open_architecture(const std::string& model) {
  const bool is_default = is_default_model(model);
  const std::string name = is_default ? kDefaultArchitecture : model;
  const std::vector<std::string> known = models::known_model_names();
  std::error_code error;
  // A folder comes first, as generate would take it.
  if (is_default ||
      (std::find(known.begin(), known.end(), name) != known.end() && !std::filesystem::is_directory(name, error))) {
    return models::family_of_known(name)->open_known(name);
  }
  return models::open_model_folder(name);
}

}  // namespace

int run_plan(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const pipelines::Request request = pipelines::to_request(effective);
  const std::string file = effective.get_string("json", "");
  if (!file.empty() && file != "-") pipelines::check_output_file(file, request.may_overwrite);
  const pipelines::Device device = device_of(effective);
  const auto model = open_architecture(effective.get_string("model", ""));
  pipelines::resolve_clip(request, model->info());  // refusals before the measurement
  const Plan plan =
      pipelines::make_plan(*model, request, {.device = device, .text_tokens = effective.get_integer("text_tokens", 0)},
                           pipelines::measure_rates(device));
  for (const std::string& text : plan.job.adjustments) log_warning("{}", text);
  for (const std::string& text : plan.attention.warnings) log_warning("{}", text);
  std::string text;
  if (file != "-") text = text_clip(plan) + text_flops(plan) + text_memory(plan) + text_time(plan, device);
  if (!file.empty()) {
    const std::string json = weights::to_json(json_plan(plan, device)) + "\n";
    if (file == "-") {
      text = json;
    } else {
      write_file(file, json);
    }
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace strobe::tools
