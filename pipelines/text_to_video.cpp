#include <sys/resource.h>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "core/nearest.h"
#include "core/noise.h"
#include "core/timer.h"
#include "kernels/common/machine.h"
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

// Turns the sampler's question "velocity at x?" into forwards of the right expert and branches.
class Denoiser {
 public:
  Denoiser(const models::ModelFolder& folder, const Device& device, const Job& job, const Progress& progress)
      : folder_(folder),
        loras_(job.request.loras.empty() ? weights::LoraPlan() : folder.plan_loras(job.request.loras)),
        device_(device),
        job_(job),
        progress_(progress),
        cache_(caching::make_step_cache("none")),
        blocks_(*cache_),
        engine_({.pattern = job.request.attention, .backend = job.request.attention_backend}),
        guider_(sampling::make_guider(job.request.guider,
                                      {.scale_per_stage = {job.guidance_scale, job.guidance_scale_2}})) {}

  // Whether the run will ask for the unconditional branch at all.
  bool needs_negative() const {
    for (Branch branch : guider_->branches({.step = 0, .steps = 1})) {
      if (branch == Branch::kUncond) return true;
    }
    return false;
  }

  void set_text(models::Conditioning positive, models::Conditioning negative) {
    positive_ = std::move(positive);
    negative_ = std::move(negative);
  }

  at::Tensor operator()(const at::Tensor& x, float timestep, double sigma, int step) {
    use_stage(stage_of(folder_.info(), timestep));
    const sampling::GuidanceStep guidance{
        .step = step, .steps = job_.num_inference_steps, .sigma = sigma, .stage = stage_};
    std::vector<at::Tensor> predictions;
    for (Branch branch : guider_->branches(guidance)) {
      models::ModelContext context{.attention = engine_,
                                   .blocks = blocks_,
                                   .branches = {branch},
                                   .stage = stage_,
                                   .step = step,
                                   .steps = job_.num_inference_steps,
                                   .seed = job_.request.seed,
                                   .sigma = sigma};
      if (forwards_ == 0) context.probe = progress_.probe;
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

  const attention::AttentionEngine& engine() const { return engine_; }
  const std::vector<weights::LoraUse>& loras() const { return loras_.uses; }
  int64_t forwards() const { return forwards_; }
  double load_ms() const { return load_ms_; }

 private:
  void use_stage(int stage) {
    if (stage == stage_) return;
    const Timer timer;
    prepared_positive_.reset();
    prepared_negative_.reset();
    dit_.reset();  // before the next one takes its place
    models::DitOptions options{.dtype = device_.dtype, .device = device_.device};
    if (!loras_.patches.empty()) options.patches = loras_.patches.at(static_cast<size_t>(stage));
    dit_ = folder_.load_dit(stage, options);
    prepared_positive_ = dit_->prepare(positive_);
    if (negative_.text.states.defined()) prepared_negative_ = dit_->prepare(negative_);
    stage_ = stage;
    load_ms_ += timer.milliseconds();
  }

  const models::ModelFolder& folder_;
  weights::LoraPlan loras_;
  const Device& device_;
  const Job& job_;
  const Progress& progress_;
  std::unique_ptr<caching::StepCache> cache_;
  models::BlockRunner blocks_;
  attention::AttentionEngine engine_;
  std::unique_ptr<sampling::Guider> guider_;
  std::unique_ptr<models::DiTModel> dit_;
  models::Conditioning positive_, negative_;
  std::shared_ptr<models::PreparedConditioning> prepared_positive_, prepared_negative_;
  int stage_ = -1;
  int64_t forwards_ = 0;
  double load_ms_ = 0;
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

Pipeline::Pipeline(std::unique_ptr<models::ModelFolder> folder, Device device)
    : folder_(std::move(folder)), device_(device) {}
Pipeline::~Pipeline() = default;
Pipeline::Pipeline(Pipeline&&) noexcept = default;

models::TextEmbedding Pipeline::embed(const std::string& prompt) {
  if (!tokenizer_) tokenizer_ = folder_->load_tokenizer();
  if (!text_encoder_) text_encoder_ = folder_->load_text_encoder(device_.dtype, device_.device);
  const int64_t limit = info().padded_text_tokens;
  const std::vector<int32_t> ids = tokenizer_->encode(folder_->clean_prompt(prompt), limit);
  if (static_cast<int64_t>(ids.size()) == limit) {
    log_warning("the prompt reaches the model's limit of {} tokens; what is beyond is cut off", limit);
  }
  return {.states = text_encoder_->encode(ids), .padded_tokens = limit};
}

at::Tensor Pipeline::denoise(const Job& job, at::Tensor start, const Progress& progress, Result& result) {
  auto sampler = sampling::make_sampler(job.scheduler);
  const sampling::Schedule schedule = make_schedule(job);
  Denoiser denoiser(*folder_, device_, job, progress);

  enter(progress, "text");
  Timer timer;
  models::Conditioning positive{.text = embed(job.request.prompt)}, negative;
  if (denoiser.needs_negative()) negative.text = embed(job.negative_prompt);
  text_encoder_.reset();
  denoiser.set_text(std::move(positive), std::move(negative));
  result.times.text_ms = timer.milliseconds();
  stop_if_interrupted(progress);

  enter(progress, "denoise");
  timer = Timer();
  Timer step_timer;
  at::Tensor latents = sampler->sample(
      schedule, {.x = std::move(start)},
      [&](const at::Tensor& x, double sigma, int step) {
        return denoiser(x, schedule.timesteps[static_cast<size_t>(step)], sigma, step);
      },
      [&](const sampling::SamplerState& state) {
        if (progress.on_step) progress.on_step(state.step, schedule.steps(), step_timer.seconds());
        if (progress.on_latents) progress.on_latents(state.step, state.x);
        step_timer = Timer();
        if (state.step < schedule.steps()) stop_if_interrupted(progress);
      });
  result.times.load_ms = denoiser.load_ms();
  result.times.denoise_ms = timer.milliseconds() - denoiser.load_ms();
  result.attention = denoiser.engine().stats().rows();
  result.loras = denoiser.loras();
  result.forwards = denoiser.forwards();
  return latents;
}

Result Pipeline::generate(const Job& job, const Progress& progress) {
  at::NoGradGuard no_grad;
  const Timer timer;
  Result result;
  if (info().input_channels != info().latent_channels) {
    throw UnsupportedError(
        fmt::format("{}: the transformer reads {} channels for latents of {}: an image-to-video model; "
                    "generate makes video from text alone",
                    info().name, info().input_channels, info().latent_channels));
  }
  at::Tensor start = job.request.init_latents.empty() ? draw_noise(job.request.seed, job.latent_shape)
                                                      : load_latents(job.request.init_latents, job.latent_shape);
  result.latents = denoise(job, std::move(start), progress, result);
  if (!at::isfinite(result.latents).all().item<bool>()) {
    throw Error(
        "the latents are not finite after sampling; the weights or the settings (dtype, guidance scale) do not fit");
  }
  if (!job.request.save_latents.empty()) {
    save_latents(job.request.save_latents, result.latents,
                 {{"model", info().name},
                  {"seed", std::to_string(job.request.seed)},
                  {"num_frames", std::to_string(job.num_frames)},
                  {"height", std::to_string(job.height)},
                  {"width", std::to_string(job.width)},
                  {"step", std::to_string(job.num_inference_steps)}});
  }
  stop_if_interrupted(progress);
  write_video(result.latents, job.request, job.fps, progress, result);
  result.times.total_ms = timer.milliseconds();
  result.peak_memory_bytes = peak_memory_bytes();
  return result;
}

void Pipeline::write_video(const at::Tensor& latents, const Request& request, int64_t fps, const Progress& progress,
                           Result& result) {
  if (request.output.empty() && request.save_frames.empty()) return;
  enter(progress, "decode");
  Timer timer;
  auto vae = folder_->load_vae(at::kFloat, device_.device);
  result.times.load_ms += timer.milliseconds();
  timer = Timer();
  const int64_t height = latents.size(3) * info().spatial_stride, width = latents.size(4) * info().spatial_stride;
  const int64_t total = (latents.size(2) - 1) * info().temporal_stride + 1;
  std::unique_ptr<video::VideoWriter> file, frames;
  if (!request.output.empty()) {
    file = video::open_video_writer(request.output, video_options(request, height, width, fps));
  }
  if (!request.save_frames.empty()) {
    frames = video::open_video_writer(request.save_frames.string() + "/",
                                      {.height = height, .width = width, .fps = {.numerator = fps, .denominator = 1}});
  }
  video::FrameHash hash;
  double encode_ms = 0;
  vae->decode(latents.squeeze(0).to(device_.device), {.is_enabled = request.uses_vae_tiling},
              [&](const at::Tensor& chunk) {
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
  const Timer close_timer;
  if (frames) frames->close();
  if (file) file->close();
  encode_ms += close_timer.milliseconds();
  if (file || frames) result.encoder = (file ? file : frames)->encoder();
  result.frame_sha256 = hash.finish();
  result.times.encode_ms = encode_ms;
  result.times.decode_ms = timer.milliseconds() - encode_ms;
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
  write_video(latents, request, fps, progress, result);
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
  const Job job = resolve(sized, info());
  for (const std::string& line : job.adjustments) log_warning("{}", line);
  enter(progress, "encode");
  auto vae = folder_->load_vae(at::kFloat, device_.device);
  int64_t read = 0;
  const int64_t limit = request.num_frames.value_or(std::numeric_limits<int64_t>::max());
  at::Tensor latents = vae->encode(
      [&](int64_t wanted) -> at::Tensor {
        stop_if_interrupted(progress);
        at::Tensor frames = reader->read(std::min(wanted, limit - read));
        if (!frames.defined()) return {};
        read += frames.size(0);
        if (frames.size(1) != job.height || frames.size(2) != job.width) {
          frames = video::resize_frames(frames, job.height, job.width);
        }
        if (progress.on_frames) progress.on_frames(read, 0);
        return video::from_frames(frames).to(device_.device);
      },
      {.is_enabled = request.uses_vae_tiling});
  const int64_t used = (latents.size(1) - 1) * info().temporal_stride + 1;
  if (used < read)
    log_warning("{} frames read, the last {} dropped: the VAE takes {}k+1", read, read - used, info().temporal_stride);
  return latents.unsqueeze(0).to(at::kCPU);
}

}  // namespace strobe::pipelines
