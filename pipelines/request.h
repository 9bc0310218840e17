// What one clip is asked to be, and what that becomes for a given model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "attention/schedule.h"
#include "models/model_folder.h"
#include "sampling/schedule.h"
#include "video/video_writer.h"
#include "weights/lora.h"

namespace strobe::pipelines {

// As asked: an empty optional is the model's default.
struct Request {
  std::string prompt;
  std::optional<std::string> negative_prompt;
  std::optional<int64_t> num_frames, height, width, fps;
  std::optional<int> num_inference_steps;
  std::optional<double> guidance_scale, guidance_scale_2, flow_shift;
  std::optional<std::string> scheduler;
  std::string sigma_spacing = "auto";  // auto, unipc, unipc-old, euler, distilled
  uint64_t seed = 0;
  std::string guider = "cfg";
  std::vector<std::string> attention;  // "METHOD:key=value,..."; the last that matches wins; empty: dense
  std::string attention_backend = "auto";
  int64_t pattern_cache_mib = 2048;
  bool is_strict = false;  // refuse a size that would be rounded
  bool uses_vae_tiling = false;
  std::vector<weights::Lora> loras;

  std::filesystem::path output;        // empty: no video
  std::filesystem::path init_latents;  // empty: noise from the seed
  std::filesystem::path save_latents;  // empty: not kept
  std::filesystem::path save_frames;   // empty: no PNG frames
  std::filesystem::path dump;          // folder of what attention did, call by call; empty: none
  std::string codec, pix_fmt;
  int crf = -1;
  bool is_lossless = false;
  bool may_overwrite = false;
};

// From a map as config::compose makes it of generate_keys(). `prompt` must hold one text or none. ConfigError for what
// fits no request.
Request to_request(const ConfigNode& effective);

// "FILE" or "FILE:WEIGHT"; only a number behind the last colon is a weight. ConfigError for one that is not finite.
weights::Lora parse_lora(const std::string& text);

// The clip that will be made: every value decided.
struct Job {
  Request request;
  std::string negative_prompt;
  int64_t num_frames = 0, height = 0, width = 0, fps = 16;
  int num_inference_steps = 0;
  double guidance_scale = 0, guidance_scale_2 = 0, flow_shift = 0;
  bool has_second_scale = false;  // the model has two experts
  std::string scheduler;
  std::vector<std::string> adjustments;  // sentences on sizes that were rounded
  std::vector<int64_t> latent_shape;     // [1, C, F, H, W]
};

// ConfigError for values out of range and for sizes that would be rounded when the request is strict.
Job resolve_clip(const Request& request, const models::ModelInfo& info);
// ConfigError for outputs that are the same, exist and may not be overwritten, or that no codec makes; IoError for
// folders that cannot be written. Nothing is made.
void check_outputs(const Job& job, bool may_overwrite);
// Both.
Job resolve(const Request& request, const models::ModelInfo& info);

// The rules of a request, in order. ConfigError for unknown methods and options, with the nearest name.
std::vector<attention::AttentionRule> attention_rules(const Request& request);
// Methods of the rules: "dense", "radial+adaspa".
std::string attention_methods_text(const Request& request);
// The density that the last rule's options ask for, of a long clip in the middle of its run; nothing where the content
// decides.
std::optional<double> asked_density(const Request& request);

// The noise levels of a job; `usual` is its sampler's own spacing. ConfigError with the nearest name for an unknown one.
sampling::Schedule make_schedule(const Job& job, sampling::FlowSpacing usual);
// The expert that is asked at a timestep.
int stage_of(const models::ModelInfo& info, float timestep);

// The writer's options for a job: of its output, and of the frames that --save-frames asks for.
video::VideoOptions video_options(const Request& request, int64_t height, int64_t width, int64_t fps);
video::VideoOptions frame_options(const Request& request, int64_t height, int64_t width, int64_t fps);

// Throws what opening the outputs would throw, before any work: existing files, missing folders, codecs.
void check_output(const std::filesystem::path& path, const video::VideoOptions& options, bool may_overwrite);
void check_output_file(const std::filesystem::path& path, bool may_overwrite);

}  // namespace strobe::pipelines
