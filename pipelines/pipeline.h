// Text to video: the only place where the parts meet.
//
// Contract  The same job, seed and build give the same output, in one run or continued from a checkpoint. Parts are
//           loaded when they are first needed and stay as parts.h says; the text encoder is released before sampling.
//           Frames go to the encoder as they are decoded.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attention/pattern_cache.h"
#include "attention/stats.h"
#include "models/model_context.h"
#include "models/model_folder.h"
#include "pipelines/checkpoint.h"
#include "pipelines/parts.h"
#include "pipelines/request.h"

namespace strobe::pipelines {

class EmbeddingStore;

// One step of sampling; attention over all its layers and branches.
struct StepReport {
  int step = 0;  // steps done
  int steps = 0;
  double seconds = 0;  // of this step
  double density = 1;
  std::string methods;  // "radial", "adaspa+dense"
  int64_t plans = 0, cache_hits = 0;
  double selection_ms = 0;
};

// What the caller sees while a clip is made. Any may be empty.
struct Progress {
  std::function<void(const std::string& stage)> on_stage;     // "text", "denoise", "decode"
  std::function<void(int64_t done, int64_t total)> on_texts;  // after each prompt that is encoded
  std::function<void(const StepReport& report)> on_step;      // after each step
  std::function<void(int64_t frames, int64_t total)> on_frames;
  std::function<bool()> is_interrupted;  // asked before each block of the text encoder, after each step and chunk
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
  std::vector<attention::SiteRow> sites;  // by step and layer
  attention::CacheCounts pattern_cache;
  std::vector<weights::LoraUse> loras;  // a row per file and transformer
  int first_step = 0;                   // steps before it were run by an earlier process
  int64_t forwards = 0;                 // evaluations of the transformer
  int64_t peak_memory_bytes = 0;
};

struct Device {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

// "auto", "cpu", "cuda", "cuda:1" and "auto", "fp32", "bf16". UnsupportedError with the reason for what is not here.
Device resolve_device(const std::string& device, const std::string& dtype);

struct PipelineOptions {
  Device device;
  Offload offload = Offload::kNone;
  std::filesystem::path embedding_cache;  // folder; empty: none
  std::string embedding_key;              // as EmbeddingOptions::key
};

// How one clip of several is run.
struct ClipOptions {
  bool keeps_parts = false;          // more clips follow
  std::filesystem::path checkpoint;  // empty: none is written
  int checkpoint_every = 0;          // steps; 0: as many as take a minute
  std::string request_hash;          // what the checkpoint belongs to
  std::optional<Checkpoint> start;   // go on from here
  // The text for the container's comment tag, asked for when the last frame is written; empty: none.
  std::function<std::string(const Result& result)> comment;
};

class Pipeline {
 public:
  Pipeline(std::unique_ptr<models::ModelFolder> folder, PipelineOptions options);
  ~Pipeline();
  Pipeline(Pipeline&&) noexcept;

  const models::ModelInfo& info() const { return folder_->info(); }
  const models::ModelFolder& folder() const { return *folder_; }

  // Jobs that will be generated: their texts are encoded together when the first one is needed.
  void announce(const std::vector<const Job*>& jobs);
  Result generate(const Job& job, const ClipOptions& clip, const Progress& progress);

  // Latents [1, C, F, H, W] to a video. The request's outputs and codec settings count.
  Result decode(const at::Tensor& latents, const Request& request, int64_t fps, const Progress& progress);
  // A video to latents, brought to the request's size (default: its own, rounded). Returns [1, C, F, H, W].
  at::Tensor encode(const std::filesystem::path& video, const Request& request, const Progress& progress);

 private:
  at::Tensor denoise(const Job& job, const ClipOptions& clip, const Progress& progress, Result& result);
  void write_video(const at::Tensor& latents, const Request& request, int64_t fps, const ClipOptions& clip,
                   const Progress& progress, Result& result);

  std::unique_ptr<models::ModelFolder> folder_;
  PipelineOptions options_;
  std::unique_ptr<EmbeddingStore> texts_;
  std::unique_ptr<Parts> parts_;
};

// Most memory that this process ever held.
int64_t peak_memory_bytes();

}  // namespace strobe::pipelines
