#include "pipelines/request.h"

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "attention/stats.h"
#include "core/error.h"
#include "core/nearest.h"
#include "core/output_file.h"
#include "pipelines/output_names.h"
#include "sampling/sampler.h"

namespace strobe::pipelines {
namespace {

void require(bool is_true, const std::string& message) {
  if (!is_true) throw ConfigError(message);
}

int64_t round_size(const Request& request, const char* flag, int64_t asked, int64_t multiple,
                   std::vector<std::string>& adjustments) {
  require(asked >= 1 && asked <= 16384, fmt::format("{} {}: expected 1 to 16384 pixels", flag, asked));
  const int64_t rounded = std::max(multiple, asked / multiple * multiple);
  if (rounded == asked) return asked;
  const std::string message = fmt::format("{} {} is not a multiple of {}", flag, asked, multiple);
  require(!request.is_strict, fmt::format("{} (--strict); the nearest below is {}", message, rounded));
  adjustments.push_back(fmt::format("{}: using {}", message, rounded));
  return rounded;
}

int64_t round_frames(const Request& request, int64_t asked, int64_t stride, std::vector<std::string>& adjustments) {
  require(asked >= 1 && asked <= 100000, fmt::format("--num-frames {}: expected 1 to 100000", asked));
  if ((asked - 1) % stride == 0) return asked;
  // As diffusers does: 80 frames become 81, 82 become 81.
  const int64_t rounded = std::max<int64_t>(1, asked / stride * stride + 1);
  const std::string message = fmt::format("--num-frames {} is not {}k+1", asked, stride);
  require(!request.is_strict, fmt::format("{} (--strict); {} is", message, rounded));
  adjustments.push_back(fmt::format("{}: using {}", message, rounded));
  return rounded;
}

sampling::FlowSpacing parse_spacing(const std::string& name, sampling::FlowSpacing automatic) {
  if (name == "auto") return automatic;
  if (name == "unipc") return sampling::FlowSpacing::kUniPc;
  if (name == "unipc-old") return sampling::FlowSpacing::kUniPcOld;
  if (name == "euler") return sampling::FlowSpacing::kEuler;
  if (name == "distilled") return sampling::FlowSpacing::kDistilled;
  throw ConfigError("--sigma-spacing: " +
                    unknown_name_message("spacing", name, {"auto", "unipc", "unipc-old", "euler", "distilled"}));
}

bool is_folder_output(const std::filesystem::path& path) { return path.string().ends_with('/'); }

std::filesystem::path comparable(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path).lexically_normal();
  std::filesystem::path whole = std::filesystem::weakly_canonical(absolute, error);
  if (error) whole = absolute;
  return whole.has_filename() ? whole : whole.parent_path();
}

void check_loras(const std::vector<weights::Lora>& loras) {
  for (const weights::Lora& lora : loras) {
    const std::string path = lora.path.string();
    std::error_code error;
    require(std::filesystem::exists(lora.path, error), fmt::format("--lora {}: no such file", path));
    require(std::filesystem::is_regular_file(lora.path, error), fmt::format("--lora {}: not a file", path));
    require(std::isfinite(lora.weight), fmt::format("--lora {}: expected a finite weight", path));
  }
}

// Two outputs under one name would leave one of them.
void check_outputs_differ(const Request& request) {
  const std::pair<const char*, const std::filesystem::path*> outputs[] = {{"--output", &request.output},
                                                                          {"--save-latents", &request.save_latents},
                                                                          {"--save-frames", &request.save_frames},
                                                                          {"--dump", &request.dump}};
  for (const auto& [flag, path] : outputs) {
    for (const auto& [other_flag, other] : outputs) {
      if (path == other || path->empty() || other->empty() || comparable(*path) != comparable(*other)) continue;
      throw ConfigError(fmt::format("{} and {} are the same path: {}", flag, other_flag, path->string()));
    }
    for (const weights::Lora& lora : request.loras) {
      if (path->empty() || comparable(*path) != comparable(lora.path)) continue;
      throw ConfigError(fmt::format("{} would replace the LoRA file {}", flag, path->string()));
    }
  }
}

}  // namespace

sampling::Schedule make_schedule(const Job& job, sampling::FlowSpacing usual) {
  return sampling::make_flow_schedule({.steps = job.num_inference_steps,
                                       .shift = job.flow_shift,
                                       .spacing = parse_spacing(job.request.sigma_spacing, usual)});
}

int stage_of(const models::ModelInfo& info, float timestep) {
  const double boundary = info.boundary_ratio * 1000.0;
  return boundary > 0 && timestep < boundary ? 1 : 0;
}

weights::Lora parse_lora(const std::string& text) {
  weights::Lora lora{.path = text};
  const size_t colon = text.rfind(':');
  if (colon != std::string::npos && colon + 1 < text.size()) {
    const std::string number = text.substr(colon + 1);
    char* end = nullptr;
    const double weight = std::strtod(number.c_str(), &end);
    if (*end == '\0' && !std::isspace(static_cast<unsigned char>(number[0]))) {
      lora = {.path = text.substr(0, colon), .weight = weight};
    }
  }
  require(!lora.path.empty(), fmt::format("--lora {}: expected FILE or FILE:WEIGHT", text));
  require(std::isfinite(lora.weight), fmt::format("--lora {}: expected a finite weight", text));
  return lora;
}

video::VideoOptions video_options(const Request& request, int64_t height, int64_t width, int64_t fps) {
  return {.height = height,
          .width = width,
          .fps = {.numerator = fps, .denominator = 1},
          .codec = request.codec,
          .crf = request.crf,
          .pix_fmt = request.pix_fmt,
          .is_lossless = request.is_lossless,
          .may_overwrite = request.may_overwrite};
}

video::VideoOptions frame_options(const Request& request, int64_t height, int64_t width, int64_t fps) {
  return {.height = height,
          .width = width,
          .fps = {.numerator = fps, .denominator = 1},
          .may_overwrite = request.may_overwrite};
}

void check_output_file(const std::filesystem::path& path, bool may_overwrite) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw ConfigError(fmt::format("{}: is a folder", path.string()));
  if (!may_overwrite && std::filesystem::exists(path, error)) {
    throw ConfigError(fmt::format("{}: exists already; give --overwrite to replace it", path.string()));
  }
  check_folder_writable(folder_of(path));
}

void check_output(const std::filesystem::path& path, const video::VideoOptions& options, bool may_overwrite) {
  const std::string text = path.string();
  const bool is_frames = is_folder_output(path) || path.extension() == ".png";
  if (!is_frames) check_output_file(path, may_overwrite);
  if (is_frames && !may_overwrite) {
    const std::filesystem::path folder = is_folder_output(path) ? path : path.parent_path();
    std::error_code error;
    if (text.find('{') == std::string::npos && path.extension() == ".png") check_output_file(path, false);
    if (is_folder_output(path) && std::filesystem::exists(folder, error) && !std::filesystem::is_empty(folder, error)) {
      throw ConfigError(fmt::format("{}: the folder is not empty; give --overwrite to write into it", text));
    }
  }
  video::check_video_options(path, options);
}

std::vector<attention::AttentionRule> attention_rules(const Request& request) {
  std::vector<attention::AttentionRule> rules;
  for (const std::string& text : request.attention) rules.push_back(attention::make_rule(ConfigNode::string(text)));
  return rules;
}

std::string attention_methods_text(const Request& request) {
  std::string text;
  for (const std::string& rule : request.attention) {
    attention::add_name(text, rule.substr(0, rule.find(':')));
  }
  return text.empty() ? "dense" : text;
}

std::optional<double> asked_density(const Request& request) {
  const auto rules = attention_rules(request);
  if (rules.empty()) return 1.0;
  const attention::AttentionSite site{
      .layer = 1, .layers = 2, .step = 25, .steps = 50, .grid = {.frames = 21, .rows = 30, .cols = 52}};
  const auto density = rules.back().pattern->nominal_density(site, /*heads=*/1);
  if (!density || density->is_bound) return {};
  return density->density;
}

Job resolve_clip(const Request& request, const models::ModelInfo& info) {
  check_loras(request.loras);
  attention_rules(request);
  const models::ModelDefaults& d = info.defaults;
  Job job;
  job.request = request;
  job.negative_prompt = request.negative_prompt.value_or(d.negative_prompt);
  job.num_frames =
      round_frames(request, request.num_frames.value_or(d.num_frames), info.temporal_stride, job.adjustments);
  job.height = round_size(request, "--height", request.height.value_or(d.height), info.size_multiple, job.adjustments);
  job.width = round_size(request, "--width", request.width.value_or(d.width), info.size_multiple, job.adjustments);
  job.fps = request.fps.value_or(d.fps);
  require(job.fps >= 1 && job.fps <= 240, fmt::format("--fps {}: expected 1 to 240", job.fps));
  job.num_inference_steps = request.num_inference_steps.value_or(d.num_inference_steps);
  require(job.num_inference_steps >= 1 && job.num_inference_steps <= 1000,
          fmt::format("--num-inference-steps {}: expected 1 to 1000", job.num_inference_steps));
  job.guidance_scale = request.guidance_scale.value_or(d.guidance_scale);
  // A second scale belongs to the second expert; unless given, a changed first one counts for both.
  const double second = d.guidance_scale_2 > 0 && !request.guidance_scale ? d.guidance_scale_2 : job.guidance_scale;
  job.guidance_scale_2 = request.guidance_scale_2.value_or(second);
  require(std::isfinite(job.guidance_scale) && std::isfinite(job.guidance_scale_2),
          "--guidance-scale: expected a finite number");
  if (request.guidance_scale_2 && info.stages < 2) {
    throw ConfigError(fmt::format("--guidance-scale-2: {} has one expert", info.name));
  }
  job.has_second_scale = info.stages > 1;
  job.flow_shift = request.flow_shift.value_or(d.flow_shift);
  require(std::isfinite(job.flow_shift) && job.flow_shift > 0,
          fmt::format("--flow-shift {}: expected a number above 0", job.flow_shift));
  job.scheduler = request.scheduler.value_or(d.scheduler);
  job.latent_shape = {1, info.latent_channels, (job.num_frames - 1) / info.temporal_stride + 1,
                      job.height / info.spatial_stride, job.width / info.spatial_stride};
  return job;
}

void check_outputs(const Job& job, bool may_overwrite) {
  const Request& request = job.request;
  const video::VideoOptions options = video_options(request, job.height, job.width, job.fps);
  check_outputs_differ(request);
  if (!request.output.empty()) check_output(request.output, options, may_overwrite);
  if (!request.save_frames.empty()) {
    check_output(request.save_frames.string() + "/", frame_options(request, job.height, job.width, job.fps),
                 may_overwrite);
  }
  if (!request.save_latents.empty()) check_output_file(request.save_latents, may_overwrite);
  if (!request.dump.empty()) {
    std::error_code error;
    if (std::filesystem::exists(request.dump, error) && !std::filesystem::is_directory(request.dump, error)) {
      throw ConfigError(fmt::format("--dump {}: not a folder", request.dump.string()));
    }
    check_folder_writable(folder_of(clip_stem(request.dump)));
  }
}

Job resolve(const Request& request, const models::ModelInfo& info) {
  Job job = resolve_clip(request, info);
  check_outputs(job, request.may_overwrite);
  return job;
}

}  // namespace strobe::pipelines
