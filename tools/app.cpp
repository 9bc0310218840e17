#include "tools/app.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "kernels/common/machine.h"
#include "tools/build_info.h"
#include "video/video_writer.h"

namespace strobe::tools {
namespace {

std::atomic<int> interrupts{0};

void on_signal(int signal_number) {
  if (++interrupts >= 2) _exit(128 + signal_number);
}

std::string format_seconds(double seconds) {
  const auto total = static_cast<int64_t>(seconds + 0.5);
  if (total < 60) return fmt::format("{} s", total);
  if (total < 3600) return fmt::format("{}:{:02} min", total / 60, total % 60);
  return fmt::format("{}:{:02} h", total / 3600, total % 3600 / 60);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // A closed pipe or a full disk is an error to report, not a reason to die.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool is_interrupted() { return interrupts > 0; }

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.add_option("--model", options.model, "bundled name or folder in diffusers layout (default: a small random model)")
      ->group("Model");
  app.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")->capture_default_str()->group("Machine");
  app.add_option("--dtype", options.dtype, "auto, fp32 or bf16")->capture_default_str()->group("Machine");
  app.add_option("--threads", options.threads, "CPU threads (default: all processors)")
      ->check(CLI::Range(1, 1024))
      ->group("Machine");
  app.add_flag("-q,--quiet", options.is_quiet, "no progress, only warnings and errors")->group("Talk");
  app.add_flag("-v,--verbose", options.is_verbose, "say more")->group("Talk");
}

void add_size_options(CLI::App& app, pipelines::Request& r, std::string& whole) {
  app.add_option("--num-frames", r.num_frames, "frames, 4k+1 (default: the model's)")->group("Clip");
  auto* height = app.add_option("--height", r.height, "pixels (default: the model's)")->group("Clip");
  auto* width = app.add_option("--width", r.width, "pixels (default: the model's)")->group("Clip");
  app.add_option("--size", whole, "WIDTHxHEIGHT in one flag")->excludes(height)->excludes(width)->group("Clip");
  app.add_flag("--strict", r.is_strict, "refuse sizes that would be rounded")->group("Clip");
}

void add_sampling_options(CLI::App& app, pipelines::Request& r) {
  app.add_option("--num-inference-steps,--steps", r.num_inference_steps, "denoising steps (default: the model's)")
      ->group("Sampling");
  app.add_option("--guidance-scale,--cfg-scale", r.guidance_scale, "1 or less: no guidance (default: the model's)")
      ->group("Sampling");
  app.add_option("--guidance-scale-2", r.guidance_scale_2, "of the low-noise expert (default: as the first)")
      ->group("Sampling");
  app.add_option("--flow-shift", r.flow_shift, "shift of the noise schedule (default: the model's)")->group("Sampling");
  app.add_option("--scheduler", r.scheduler, "unipc or euler (default: the model's)")->group("Sampling");
  app.add_option("--sigma-spacing", r.sigma_spacing, "auto, unipc, unipc-old, euler, distilled")
      ->capture_default_str()
      ->group("Sampling");
  app.add_option("--attention", r.attention, "attention method: dense")->capture_default_str()->group("Attention");
  app.add_option("--attention-backend", r.attention_backend, "force a kernel by name")
      ->capture_default_str()
      ->group("Attention");
}

void parse_size(const std::string& text, pipelines::Request& request) {
  int width = 0, height = 0, used = 0;
  if (std::sscanf(text.c_str(), "%dx%d%n", &width, &height, &used) != 2 || static_cast<size_t>(used) != text.size()) {
    throw ConfigError(fmt::format("--size {}: expected WIDTHxHEIGHT such as 832x480", text));
  }
  request.width = width;
  request.height = height;
}

void add_output_options(CLI::App& app, pipelines::Request& request) {
  app.add_option("--codec", request.codec,
                 "encoder: h264, ffv1, vp9 or an FFmpeg name (default: the container's usual one)")
      ->group("Output");
  app.add_option("--crf", request.crf, "quality of the encoder, smaller is better (default: 18 for H.264)")
      ->check(CLI::Range(0, 63))
      ->group("Output");
  app.add_option("--pix-fmt", request.pix_fmt, "pixel format (default: yuv420p)")->group("Output");
  app.add_flag("--lossless", request.is_lossless, "FFV1 in mkv, bit-exact frames")->group("Output");
  app.add_option("--save-frames", request.save_frames, "also write PNG frames into this folder")->group("Output");
  app.add_flag("--overwrite", request.may_overwrite, "replace outputs that exist")->group("Output");
  app.add_option("--fps", request.fps, "frames per second (default: the model's)")->group("Clip");
  app.add_flag("--vae-tiling", request.uses_vae_tiling, "decode in tiles of 256 px: less memory, slightly other pixels")
      ->group("Model");
}

void apply_common_options(const CommonOptions& options) {
  set_log_level(options.is_quiet ? LogLevel::kWarning : options.is_verbose ? LogLevel::kDebug : LogLevel::kInfo);
  for (const std::string& name : kernels::machine().unknown_masks) {
    log_warning("STROBE_MACHINE: '{}' masks nothing; known: no-avx2, no-avx512, no-bf16, no-gpu", name);
  }
  at::set_num_threads(options.threads > 0 ? options.threads : kernels::machine().cores);
}

std::filesystem::path default_model_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base = cache && *cache ? std::filesystem::path(cache)
                                     : home && *home ? std::filesystem::path(home) / ".cache"
                                                     : std::filesystem::temp_directory_path();
  return base / "strobe" / "models" / "tiny-random-v1";
}

std::filesystem::path default_model_folder() {
  const std::filesystem::path folder = default_model_path();
  std::error_code error;
  if (std::filesystem::exists(folder / "model_index.json", error)) return folder;
  std::filesystem::create_directories(folder.parent_path(), error);
  if (error) throw IoError(fmt::format("{}: {}", folder.parent_path().string(), error.message()));
  log_info("making the default model, a small random one, in {}", folder.string());
  const auto files = models::family_of_known(kDefaultArchitecture)->known_files(kDefaultArchitecture, kRandomNote);
  try {
    models::write_random_checkpoint(folder, files, {.seed = 1});
  } catch (const Error&) {
    // Another process may have made it in the meantime: its files are the same.
    if (!std::filesystem::exists(folder / "model_index.json", error)) throw;
  }
  return folder;
}

pipelines::Pipeline open_pipeline(const CommonOptions& options) {
  const pipelines::Device device = pipelines::resolve_device(options.device, options.dtype);
  const bool is_default = options.model.empty() || options.model == "tiny-random";
  pipelines::Pipeline pipeline(
      models::open_model_folder(is_default ? default_model_folder() : std::filesystem::path(options.model)), device);
  if (!pipeline.info().note.empty()) log_warning("model {}: {}", pipeline.info().name, pipeline.info().note);
  return pipeline;
}

std::string version_text() {
  return fmt::format("strobe {} ({})\nLibTorch {}\nCUDA {}\nFFmpeg {}\ncompiler {}, {}\n", kVersion, kCommit,
                     kTorchVersion, kHasCuda ? "yes" : "not in this build", video::ffmpeg_version(), kCompiler,
                     kBuildType);
}

ProgressLine::ProgressLine(bool is_quiet) : is_quiet_(is_quiet), is_terminal_(isatty(STDERR_FILENO) != 0) {
  set_log_sink([this](LogLevel level, std::string_view message) {
    // A message must not be glued to the progress line.
    if (has_open_line_) std::fputs("\r\033[K", stderr);
    has_open_line_ = false;
    const char* prefix = level == LogLevel::kError ? "error: " : level == LogLevel::kWarning ? "warning: " : "";
    std::fprintf(stderr, "%s%.*s\n", prefix, static_cast<int>(message.size()), message.data());
  });
}

ProgressLine::~ProgressLine() {
  finish();
  set_log_sink({});
}

void ProgressLine::finish() {
  if (has_open_line_) std::fputc('\n', stderr);
  has_open_line_ = false;
}

void ProgressLine::show(const std::string& text, double fraction) {
  if (is_quiet_) return;
  if (is_terminal_) {
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    std::fflush(stderr);
    has_open_line_ = true;
    return;
  }
  const int tenth = static_cast<int>(fraction * 10.0 + 1e-9);
  if (tenth == last_tenth_) return;
  last_tenth_ = tenth;
  std::fprintf(stderr, "%s\n", text.c_str());
}

void ProgressLine::show_bytes(const std::string& what, uint64_t done, uint64_t total) {
  const double all = static_cast<double>(std::max<uint64_t>(total, 1));
  show(fmt::format("{} {:.2f}/{:.2f} GB", what, static_cast<double>(done) / 1e9, all / 1e9),
       static_cast<double>(done) / all);
}

pipelines::Progress ProgressLine::callbacks() {
  pipelines::Progress progress;
  progress.on_stage = [this](const std::string& stage) {
    finish();
    stage_ = stage;
    last_tenth_ = -1;
    step_seconds_ = 0;
    log_debug("stage: {}", stage);
  };
  progress.on_step = [this](int step, int steps, double seconds) {
    step_seconds_ += seconds;
    const double mean = step_seconds_ / step;
    show(fmt::format("denoise {}/{}  {:.2f} s/it  ETA {}  peak {:.1f} GiB", step, steps, seconds,
                     format_seconds(mean * (steps - step)),
                     static_cast<double>(pipelines::peak_memory_bytes()) / (1 << 30)),
         static_cast<double>(step) / steps);
  };
  progress.on_frames = [this](int64_t frames, int64_t total) {
    if (total > 0) {
      show(fmt::format("{} {}/{} frames", stage_, frames, total),
           static_cast<double>(frames) / static_cast<double>(total));
    } else {
      show(fmt::format("{} {} frames", stage_, frames), 0);
    }
  };
  progress.is_interrupted = [] { return tools::is_interrupted(); };
  return progress;
}

}  // namespace strobe::tools
