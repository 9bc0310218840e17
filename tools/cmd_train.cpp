// strobe train: a recipe file to a model folder or a LoRA.
#include <malloc.h>

#include <cstdio>

#include "core/torch.h"
// After the precompiled header.
#include "attention/kernel_call.h"
#include "core/error.h"
#include "core/log.h"
#include "kernels/common/fma_peak.h"
#include "models/trainable_model.h"
#include "pipelines/training_run.h"
#include "pipelines/training_samples.h"
#include "tools/app.h"

namespace strobe::tools {
namespace {

using pipelines::SampleReport;
using pipelines::TrainingReport;

std::string time_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds);
  return s >= 3600 ? fmt::format("{}h{:02}", s / 3600, s / 60 % 60) : fmt::format("{}m{:02}", s / 60, s % 60);
}

// GFLOP/s that all threads of the run could do, once a run; 0 where a GPU computes.
double measure_peak(const pipelines::Device& device) {
  if (!device.device.is_cpu()) return 0;
  return kernels::measure_fma_peak(kernels::widest_fma_loop(kernels::ScalarType::kFloat32),
                                   attention::torch_parallel()) /
         1e9;
}

std::string report_line(const TrainingReport& r, double peak) {
  std::string line = fmt::format("{} ({}/{}): {}/{} samples, step {}, loss {:.4f}", r.stage, r.stage_index + 1,
                                 r.stages, r.samples, r.stage_samples, r.step, r.loss);
  for (const auto& [name, value] : r.terms) line += fmt::format(", {} {:.4f}", name, value);
  line += fmt::format(", rate {:.2f}, {:.1f} samples/s, {:.0f} ms/step (clips {:.0f} %, optimiser {:.0f} %)", r.rate,
                      r.samples_per_second, r.milliseconds, 100 * r.drawing_ratio, 100 * r.optimizer_ratio);
  if (r.gigaflops > 0) {
    line += fmt::format(", {:.1f} GFLOP/s", r.gigaflops);
    if (peak > 0) line += fmt::format(" ({:.0f} % of the peak)", 100 * r.gigaflops / peak);
  }
  return line + ", " + time_text(r.eta_seconds) + " left of the stage";
}

std::string sample_line(const SampleReport& r) {
  std::string line = fmt::format("{}: samples at {}:", r.strip.string(), r.samples);
  for (const auto& [name, value] : r.scores) line += fmt::format(" {} {:.3f}", name, value);
  return line;
}

// A step asks for the same gigabyte as the one before: it stays with the process, where clips give theirs back. Fresh
// pages were a tenth of a step's time.
void keep_memory() {
  constexpr int kLargest = 1 << 30;
  mallopt(M_MMAP_THRESHOLD, kLargest);
  mallopt(M_TRIM_THRESHOLD, kLargest);
  mallopt(M_TOP_PAD, 64 << 20);
}

}  // namespace

int run_train(const Invocation& invocation) {
  keep_memory();
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const pipelines::TrainingPlan plan = pipelines::load_training_plan(invocation.positionals.at("FILE").at(0));
  pipelines::TrainingOptions options{.folder = effective.at("output").as_string(),
                                     .resumes = effective.get_bool("resume", false),
                                     .device = device_of(effective),
                                     .most_minutes = effective.get_number("minutes", 0),
                                     .most_steps = effective.get_integer("max_steps", 0)};
  if (const int64_t count = effective.get_integer("preview", 0); count > 0) {
    const int64_t fps = models::open_trainable_model(plan.recipe.model)->info().defaults.fps;
    for (const std::string& caption : pipelines::write_preview(plan, options.folder, count, fps)) {
      std::printf("%s\n", caption.c_str());
    }
    return static_cast<int>(ExitCode::kDone);
  }
  const double peak = measure_peak(options.device);
  if (peak > 0)
    log_info("{} thread{}, FMA peak {:.0f} GFLOP/s", at::get_num_threads(), at::get_num_threads() == 1 ? "" : "s",
             peak);
  const pipelines::TrainingEvents events{
      .on_report = [&](const TrainingReport& r) { log_info("{}", report_line(r, peak)); },
      .on_samples = [](const SampleReport& r) { log_info("{}", sample_line(r)); },
      .on_note = [](const std::string& note) { log_info("{}", note); },
      .is_interrupted = is_interrupted};
  switch (run_training(plan, options, events)) {
    case pipelines::TrainingEnd::kDone:
      log_info("{}: done; the model is in {}", options.folder.string(), (options.folder / "model").string());
      return static_cast<int>(ExitCode::kDone);
    case pipelines::TrainingEnd::kStopped:
      log_info("{}: stopped as asked; --resume goes on", options.folder.string());
      return static_cast<int>(ExitCode::kDone);
    case pipelines::TrainingEnd::kInterrupted:
      throw InterruptedError(
          fmt::format("{}: interrupted; the checkpoint is written, --resume goes on", options.folder.string()));
  }
  return static_cast<int>(ExitCode::kFailed);
}

}  // namespace strobe::tools
