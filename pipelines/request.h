// What one clip is asked to be, and what that becomes for a given model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

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
  std::string attention = "dense";
  std::string attention_backend = "auto";
  bool is_strict = false;  // refuse a size that would be rounded
  bool uses_vae_tiling = false;
  std::vector<weights::Lora> loras;

  std::filesystem::path output;        // empty: no video
  std::filesystem::path init_latents;  // empty: noise from the seed
  std::filesystem::path save_latents;  // empty: not kept
  std::filesystem::path save_frames;   // empty: no PNG frames
  std::string codec, pix_fmt;
  int crf = -1;
  bool is_lossless = false;
  bool may_overwrite = false;
};

// "FILE" or "FILE:WEIGHT"; only a number behind the last colon is a weight. ConfigError for one that is not finite.
weights::Lora parse_lora(const std::string& text);

// The clip that will be made: every value decided.
struct Job {
  Request request;
  std::string negative_prompt;
  int64_t num_frames = 0, height = 0, width = 0, fps = 16;
  int num_inference_steps = 0;
  double guidance_scale = 0, guidance_scale_2 = 0, flow_shift = 0;
  std::string scheduler;
  std::vector<std::string> adjustments;  // sentences on sizes that were rounded
  std::vector<int64_t> latent_shape;     // [1, C, F, H, W]
};

// ConfigError for values out of range, for sizes that would be rounded when the request is strict, and for outputs that
// exist and may not be overwritten or cannot be written.
Job resolve(const Request& request, const models::ModelInfo& info);
// The same without a look at the outputs: for plans.
Job resolve_clip(const Request& request, const models::ModelInfo& info);

// The noise levels of a job. ConfigError with the nearest name for an unknown scheduler or spacing.
sampling::Schedule make_schedule(const Job& job);
// The expert that is asked at a timestep.
int stage_of(const models::ModelInfo& info, float timestep);

// The writer's options for a job.
video::VideoOptions video_options(const Request& request, int64_t height, int64_t width, int64_t fps);

// Throws what opening the outputs would throw, before any work: existing files, missing folders, codecs.
void check_output(const std::filesystem::path& path, const video::VideoOptions& options, bool may_overwrite);
void check_output_file(const std::filesystem::path& path, bool may_overwrite);

// "a-cat-walks-on-the-grass", at most 40 characters, for file names.
std::string slug(const std::string& prompt);

}  // namespace strobe::pipelines
