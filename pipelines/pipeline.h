// Text to video: the only place where the parts meet.
//
// Contract  The same job, seed and build give the same output. Parts are loaded when they are first needed; the text
//           encoder is released before sampling, an expert when the next one takes over, and the transformer before the
//           VAE decodes. Frames go to the encoder as they are decoded.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attention/stats.h"
#include "models/model_context.h"
#include "models/model_folder.h"
#include "pipelines/request.h"

namespace strobe::pipelines {

// What the caller sees while a clip is made. Any may be empty.
struct Progress {
  std::function<void(const std::string& stage)> on_stage;            // "text", "denoise", "decode"
  std::function<void(int step, int steps, double seconds)> on_step;  // after each step; seconds of that step
  std::function<void(int64_t frames, int64_t total)> on_frames;
  std::function<bool()> is_interrupted;                                 // asked after each step and chunk
  std::function<void(int step, const at::Tensor& latents)> on_latents;  // after each step
  models::TensorProbe probe;                                            // intermediate tensors of the first forward
};

struct StageTimes {
  double load_ms = 0, text_ms = 0, denoise_ms = 0, decode_ms = 0, encode_ms = 0, total_ms = 0;
};

struct Result {
  at::Tensor latents;  // [1, C, F, H, W] float32
  int64_t frames = 0;
  std::string frame_sha256;  // of the raw frames
  std::string encoder;       // what really wrote the video
  StageTimes times;
  std::vector<attention::AttentionRow> attention;
  std::vector<weights::LoraUse> loras;  // a row per file and transformer
  int64_t forwards = 0;                 // evaluations of the transformer
  int64_t peak_memory_bytes = 0;
};

struct Device {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

// "auto", "cpu", "cuda", "cuda:1" and "auto", "fp32", "bf16". UnsupportedError with the reason for what is not here.
Device resolve_device(const std::string& device, const std::string& dtype);

class Pipeline {
 public:
  Pipeline(std::unique_ptr<models::ModelFolder> folder, Device device);
  ~Pipeline();
  Pipeline(Pipeline&&) noexcept;

  const models::ModelInfo& info() const { return folder_->info(); }
  Result generate(const Job& job, const Progress& progress);

  // Latents [1, C, F, H, W] to a video. The request's outputs and codec settings count.
  Result decode(const at::Tensor& latents, const Request& request, int64_t fps, const Progress& progress);
  // A video to latents, brought to the request's size (default: its own, rounded). Returns [1, C, F, H, W].
  at::Tensor encode(const std::filesystem::path& video, const Request& request, const Progress& progress);

 private:
  models::TextEmbedding embed(const std::string& prompt);
  at::Tensor denoise(const Job& job, at::Tensor start, const Progress& progress, Result& result);
  void write_video(const at::Tensor& latents, const Request& request, int64_t fps, const Progress& progress,
                   Result& result);

  std::unique_ptr<models::ModelFolder> folder_;
  Device device_;
  std::unique_ptr<models::Tokenizer> tokenizer_;
  std::unique_ptr<models::TextEncoder> text_encoder_;
};

// Most memory that this process ever held.
int64_t peak_memory_bytes();

}  // namespace strobe::pipelines
