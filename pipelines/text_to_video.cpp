#include <sys/resource.h>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "core/nearest.h"
#include "core/noise.h"
#include "core/timer.h"
#include "kernels/common/machine.h"
#include "pipelines/denoiser.h"
#include "pipelines/embedding_store.h"
#include "pipelines/latents_file.h"
#include "pipelines/pipeline.h"
#include "sampling/guider.h"
#include "sampling/sampler.h"
#include "video/video_reader.h"

namespace strobe::pipelines {
namespace {

void enter(const Progress& progress, const std::string& stage) {
  if (progress.on_stage) progress.on_stage(stage);
}

void stop_if_interrupted(const Progress& progress) {
  if (progress.is_interrupted && progress.is_interrupted()) throw InterruptedError("interrupted");
}

StepReport report_step(const attention::AttentionStats& stats, int step) {
  StepReport report{.step = step + 1};
  double pairs = 0, dense_pairs = 0;
  for (auto site = stats.sites().rbegin(); site != stats.sites().rend() && site->step == step; ++site) {
    pairs += site->pairs;
    dense_pairs += site->dense_pairs;
    report.plans += site->plans;
    report.cache_hits += site->cache_hits;
    report.selection_ms += site->selection_ms;
    attention::add_name(report.methods, site->method);
  }
  if (dense_pairs > 0) report.density = pairs / dense_pairs;
  return report;
}

// Writes the state every so many steps; without a number, when a minute of work would be lost.
class CheckpointWriter {
 public:
  CheckpointWriter(const Job& job, const ClipOptions& clip, Denoiser& denoiser)
      : job_(job), clip_(clip), denoiser_(denoiser) {}

  void after_step(const sampling::SamplerState& state) {
    constexpr double kSeconds = 60;
    const bool is_last = state.step == job_.num_inference_steps;
    const bool is_due =
        clip_.checkpoint_every > 0 ? state.step % clip_.checkpoint_every == 0 : since_last_.seconds() >= kSeconds;
    if (is_due || is_last) write(state);
  }

  void write(const sampling::SamplerState& state) {
    if (clip_.checkpoint.empty() || written_step_ == state.step) return;
    since_last_ = Timer();
    const attention::AttentionEngine& engine = denoiser_.engine();
    try {
      save_checkpoint(clip_.checkpoint, {.request_hash = clip_.request_hash,
                                         .state = state,
                                         .steps = job_.num_inference_steps,
                                         .forwards = denoiser_.forwards(),
                                         .attention_states = engine.states(),
                                         .attention_rows = engine.stats().rows(),
                                         .attention_sites = engine.stats().sites(),
                                         .pattern_cache = engine.cache_counts()});
      written_step_ = state.step;
    } catch (const Error& error) {
      // The clip may still be made; only a second accident would cost the work.
      log_warning("no checkpoint of step {}: {}", state.step, error.what());
    }
  }

 private:
  const Job& job_;
  const ClipOptions& clip_;
  Denoiser& denoiser_;
  Timer since_last_;
  int written_step_ = -1;
};

}  // namespace

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

Device resolve_device(const std::string& device, const std::string& dtype) {
  Device out;
  if (device.starts_with("cuda")) {
#ifdef STROBE_HAS_CUDA
    if (kernels::machine().is_gpu_masked || !at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) {
      throw UnsupportedError("--device cuda: no CUDA device on this machine");
    }
    out.device = at::Device(device);
#else
    throw UnsupportedError("--device cuda: this build has no CUDA; build it with tools/run --preset cuda");
#endif
  } else if (device != "cpu" && device != "auto") {
    throw ConfigError("--device: " + unknown_name_message("device", device, {"auto", "cpu", "cuda", "cuda:0"}));
  }
  if (dtype == "bf16") {
    if (out.device.is_cpu() && !kernels::machine().has_fast_bf16()) {
      throw UnsupportedError(
          "--dtype bf16: this CPU has neither AVX512-BF16 nor AMX, and its bf16 products would be "
          "hundreds of times slower than fp32; use --dtype fp32");
    }
    out.dtype = at::kBFloat16;
  } else if (dtype == "auto") {
    // float32 is the exact configuration; bfloat16 is for devices that are made for it.
    out.dtype = out.device.is_cuda() ? at::kBFloat16 : at::kFloat;
  } else if (dtype != "fp32") {
    throw ConfigError("--dtype: " + unknown_name_message("dtype", dtype, {"auto", "fp32", "bf16"}));
  }
  return out;
}

Pipeline::Pipeline(std::unique_ptr<models::ModelFolder> folder, PipelineOptions options)
    : folder_(std::move(folder)),
      options_(std::move(options)),
      texts_(std::make_unique<EmbeddingStore>(*folder_, EmbeddingOptions{.dtype = options_.device.dtype,
                                                                         .device = options_.device.device,
                                                                         .folder = options_.embedding_cache,
                                                                         .key = options_.embedding_key})),
      parts_(std::make_unique<Parts>(*folder_, PartsOptions{.device = options_.device.device,
                                                            .dtype = options_.device.dtype,
                                                            .offload = options_.offload})) {}
Pipeline::~Pipeline() = default;
Pipeline::Pipeline(Pipeline&&) noexcept = default;

void Pipeline::announce(const std::vector<const Job*>& jobs) {
  std::vector<std::string> texts;
  for (const Job* job : jobs) {
    texts.push_back(job->request.prompt);
    if (needs_negative(*job)) texts.push_back(job->negative_prompt);
  }
  texts_->announce(texts);
}

at::Tensor Pipeline::denoise(const Job& job, const ClipOptions& clip, const Progress& progress, Result& result) {
  if (clip.start && clip.start->state.step == job.num_inference_steps) {
    result.attention = clip.start->attention_rows;
    result.sites = clip.start->attention_sites;
    result.pattern_cache = clip.start->pattern_cache;
    return clip.start->state.x;
  }
  sampling::SamplerState start;
  if (clip.start) {
    start = clip.start->state;
  } else {
    start.x = job.request.init_latents.empty() ? draw_noise(job.request.seed, job.latent_shape)
                                               : load_latents(job.request.init_latents, job.latent_shape);
  }
  const auto sampler = sampling::make_sampler(job.scheduler);
  const sampling::Schedule schedule = make_schedule(job, sampler->default_spacing());
  parts_->set_loras(job.request.loras);
  Denoiser denoiser(info(), *parts_, job, progress, clip.keeps_parts);
  if (clip.start) denoiser.restore(*clip.start);

  enter(progress, "text");
  Timer timer;
  const double earlier_load_ms = texts_->load_ms();
  const EncodingEvents events{.on_text =
                                  [&](int64_t done, int64_t total) {
                                    if (progress.on_texts) progress.on_texts(done, total);
                                    stop_if_interrupted(progress);
                                  },
                              .before_block = [&] { stop_if_interrupted(progress); }};
  models::Conditioning positive{.text = texts_->get(job.request.prompt, events)}, negative;
  if (needs_negative(job)) negative.text = texts_->get(job.negative_prompt, events);
  denoiser.set_text(std::move(positive), std::move(negative));
  const double text_load_ms = texts_->load_ms() - earlier_load_ms;
  result.times.text_ms = timer.milliseconds() - text_load_ms;
  stop_if_interrupted(progress);

  enter(progress, "denoise");
  timer = Timer();
  Timer step_timer;
  CheckpointWriter checkpoints(job, clip, denoiser);
  at::Tensor latents = sampler->sample(
      schedule, std::move(start),
      [&](const at::Tensor& x, double sigma, int step) {
        at::Tensor velocity = denoiser(x, schedule.timesteps[static_cast<size_t>(step)], sigma, step);
        if (!at::isfinite(velocity).all().item<bool>()) {
          throw_not_finite(*folder_, denoiser.part(), fmt::format("the prediction of step {}", step + 1));
        }
        return velocity;
      },
      [&](const sampling::SamplerState& state) {
        if (progress.on_step) {
          StepReport report = report_step(denoiser.engine().stats(), state.step - 1);
          report.steps = schedule.steps();
          report.seconds = step_timer.seconds();
          progress.on_step(report);
        }
        if (progress.on_latents) progress.on_latents(state.step, state.x);
        checkpoints.after_step(state);
        if (progress.is_interrupted && progress.is_interrupted()) checkpoints.write(state);
        step_timer = Timer();
        if (state.step < schedule.steps()) stop_if_interrupted(progress);
      });
  const double load_ms = parts_->take_load_ms();
  result.times.load_ms = load_ms + text_load_ms;
  result.times.denoise_ms = timer.milliseconds() - load_ms;
  result.attention = denoiser.engine().stats().rows();
  result.sites = denoiser.engine().stats().sites();
  result.pattern_cache = denoiser.engine().cache_counts();
  result.loras = parts_->lora_uses();
  result.forwards = denoiser.forwards();
  return latents;
}

Result Pipeline::generate(const Job& job, const ClipOptions& clip, const Progress& progress) {
  at::NoGradGuard no_grad;
  const Timer timer;
  Result result;
  if (clip.start) {
    result.first_step = clip.start->state.step;
    result.forwards = clip.start->forwards;
  }
  if (info().input_channels != info().latent_channels) {
    throw UnsupportedError(
        fmt::format("{}: the transformer reads {} channels for latents of {}: an image-to-video model; "
                    "generate makes video from text alone",
                    info().name, info().input_channels, info().latent_channels));
  }
  result.latents = denoise(job, clip, progress, result);
  if (!clip.keeps_parts) parts_->release_dits();
  if (!job.request.save_latents.empty()) {
    save_latents(job.request.save_latents, result.latents,
                 {{"model", info().name},
                  {"seed", std::to_string(job.request.seed)},
                  {"num_frames", std::to_string(job.num_frames)},
                  {"height", std::to_string(job.height)},
                  {"width", std::to_string(job.width)},
                  {"grid", fmt::format("{}x{}x{}", job.latent_shape[2], job.latent_shape[3], job.latent_shape[4])},
                  {"request_hash", clip.request_hash},
                  {"step", std::to_string(job.num_inference_steps)}});
  }
  stop_if_interrupted(progress);
  const auto finish = [&](Result& so_far) {
    so_far.times.total_ms = timer.milliseconds();
    so_far.peak_memory_bytes = peak_memory_bytes();
  };
  ClipOptions timed = clip;
  if (clip.comment) {
    timed.comment = [&](const Result&) {
      finish(result);
      return clip.comment(result);
    };
  }
  write_video(result.latents, job.request, job.fps, timed, progress, result);
  finish(result);
  return result;
}

void Pipeline::write_video(const at::Tensor& latents, const Request& request, int64_t fps, const ClipOptions& clip,
                           const Progress& progress, Result& result) {
  if (request.output.empty() && request.save_frames.empty()) return;
  enter(progress, "decode");
  Timer timer;
  const models::Vae& vae = parts_->vae(clip.keeps_parts);
  result.times.load_ms += parts_->take_load_ms();
  timer = Timer();
  const int64_t height = latents.size(3) * info().spatial_stride, width = latents.size(4) * info().spatial_stride;
  const int64_t total = (latents.size(2) - 1) * info().temporal_stride + 1;
  std::unique_ptr<video::VideoWriter> file, frames;
  if (!request.output.empty()) {
    file = video::open_video_writer(request.output, video_options(request, height, width, fps));
  }
  if (!request.save_frames.empty()) {
    frames = video::open_video_writer(request.save_frames.string() + "/", frame_options(request, height, width, fps));
  }
  video::FrameHash hash;
  double encode_ms = 0;
  vae.decode(latents.squeeze(0).to(options_.device.device), {.is_enabled = request.uses_vae_tiling},
             [&](const at::Tensor& chunk) {
               if (!at::isfinite(chunk).all().item<bool>()) throw_not_finite(*folder_, "vae", "the decoded video");
               const at::Tensor rgb = video::to_frames(chunk);
               const Timer encode_timer;
               hash.update(rgb);
               if (file) file->write(rgb);
               if (frames) frames->write(rgb);
               encode_ms += encode_timer.milliseconds();
               result.frames += rgb.size(0);
               if (progress.on_frames) progress.on_frames(result.frames, total);
               stop_if_interrupted(progress);
             });
  if (!clip.keeps_parts) parts_->release_vae();
  result.encoder = (file ? file : frames)->encoder();
  result.frame_sha256 = hash.finish();
  result.times.encode_ms = encode_ms;
  result.times.decode_ms = timer.milliseconds() - encode_ms;
  const Timer close_timer;
  if (frames) frames->close();
  if (file && clip.comment) file->set_comment(clip.comment(result));
  if (file) file->close();
  result.times.encode_ms += close_timer.milliseconds();
}

Result Pipeline::decode(const at::Tensor& latents, const Request& request, int64_t fps, const Progress& progress) {
  at::NoGradGuard no_grad;
  const Timer timer;
  Result result;
  result.latents = latents;
  if (latents.size(1) != info().latent_channels) {
    throw ConfigError(
        fmt::format("the latents have {} channels, {} reads {}", latents.size(1), info().name, info().latent_channels));
  }
  write_video(latents, request, fps, {}, progress, result);
  result.times.total_ms = timer.milliseconds();
  result.peak_memory_bytes = peak_memory_bytes();
  return result;
}

at::Tensor Pipeline::encode(const std::filesystem::path& path, const Request& request, const Progress& progress) {
  at::NoGradGuard no_grad;
  auto reader = video::open_video_reader(path);
  Request sized = request;
  sized.height = request.height.value_or(reader->info().height);
  sized.width = request.width.value_or(reader->info().width);
  sized.num_frames = 1;  // the clip's own length counts; the VAE drops what is beyond 4k+1
  const Job job = resolve_clip(sized, info());
  for (const std::string& line : job.adjustments) log_warning("{}", line);
  enter(progress, "encode");
  const models::Vae& vae = parts_->vae(/*keeps_dit=*/false);
  int64_t read = 0;
  const int64_t limit = request.num_frames.value_or(std::numeric_limits<int64_t>::max());
  at::Tensor latents = vae.encode(
      [&](int64_t wanted) -> at::Tensor {
        stop_if_interrupted(progress);
        at::Tensor frames = reader->read(std::min(wanted, limit - read));
        if (!frames.defined()) return {};
        read += frames.size(0);
        if (frames.size(1) != job.height || frames.size(2) != job.width) {
          frames = video::resize_frames(frames, job.height, job.width);
        }
        if (progress.on_frames) progress.on_frames(read, 0);
        return video::from_frames(frames).to(options_.device.device);
      },
      {.is_enabled = request.uses_vae_tiling});
  const int64_t used = (latents.size(1) - 1) * info().temporal_stride + 1;
  if (used < read)
    log_warning("{} frames read, the last {} dropped: the VAE takes {}k+1", read, read - used, info().temporal_stride);
  return latents.unsqueeze(0).to(at::kCPU);
}

}  // namespace strobe::pipelines
