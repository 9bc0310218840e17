// strobe generate: prompts to videos.
#include <cstdio>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "core/output_file.h"
#include "pipelines/memory_plan.h"
#include "pipelines/runner.h"
#include "tools/app.h"
#include "tools/event_log.h"
#include "tools/progress_line.h"

namespace strobe::tools {
namespace {

using pipelines::Job;
using pipelines::PreparedJob;
using pipelines::Result;

double gibibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

std::string clip_line(const Job& job) {
  return fmt::format("{} frames {}x{}, {} steps of {}, guidance {}, shift {}, seed {}", job.num_frames, job.width,
                     job.height, job.num_inference_steps, job.scheduler, job.guidance_scale, job.flow_shift,
                     job.request.seed);
}

void print_summary(const Job& job, const Result& result) {
  const auto& t = result.times;
  for (const attention::AttentionRow& row : result.attention) {
    log_debug("{} attention: {} by {}, {} calls, density {:.3f}, {:.1f} s{}", row.kind, row.pattern, row.backend,
              row.calls, row.density(), row.milliseconds / 1e3, row.note.empty() ? "" : " (" + row.note + ")");
  }
  log_debug("frames sha256 {}", result.frame_sha256);
  log_debug("times: load {:.1f}ms text {:.1f}ms denoise {:.1f}ms decode {:.1f}ms encode {:.1f}ms", t.load_ms, t.text_ms,
            t.denoise_ms, t.decode_ms, t.encode_ms);
  log_info(
      "{}: {} frames {}x{}, {}; {:.1f} s (load {:.1f}, text {:.1f}, denoise {:.1f}, decode {:.1f}, encode {:.1f}), "
      "peak {:.2f} GiB",
      job.request.output.string(), result.frames, job.width, job.height, result.encoder, t.total_ms / 1e3,
      t.load_ms / 1e3, t.text_ms / 1e3, t.denoise_ms / 1e3, t.decode_ms / 1e3, t.encode_ms / 1e3,
      gibibytes(result.peak_memory_bytes));
}

// Warnings on one clip, said before its work.
void print_notes(const PreparedJob& prepared) {
  const Job& job = prepared.job;
  // A drawn seed is all there is to make the clip again: said even when quiet.
  if (prepared.spec.is_seed_drawn) log_message(LogLevel::kInfo, fmt::format("seed {}", job.request.seed));
  for (const std::string& text : job.adjustments) log_warning("{}", text);
  const auto& negative = job.request.negative_prompt;
  if (negative && !negative->empty() && job.guidance_scale <= 1) {
    log_warning("the negative prompt has no effect: guidance {} is 1 or less", job.guidance_scale);
  }
}

void print_list(const std::vector<PreparedJob>& jobs, const pipelines::MemoryPlan& memory,
                const pipelines::RunOptions& options) {
  std::string text;
  for (const PreparedJob& prepared : jobs) {
    if (!prepared.error.empty()) {
      text += fmt::format("{:>5}  {}: {}\n", prepared.spec.index, prepared.spec.place, prepared.error);
      continue;
    }
    const Job& job = prepared.job;
    text += fmt::format("{:>5}  {}\n       \"{}\" ({})\n       {}\n       attention {}, request {}\n",
                        prepared.spec.index, job.request.output.string(), job.request.prompt, prepared.spec.place,
                        clip_line(job), job.request.attention, prepared.request_hash);
    for (const std::string& line : job.adjustments) text += fmt::format("       {}\n", line);
    std::string refusal;
    try {
      check_before_run(prepared, options);
    } catch (const Error& error) {
      refusal = error.what();
    }
    if (!refusal.empty()) text += fmt::format("       would be refused: {}\n", refusal);
  }
  text += fmt::format("{} clip{}; offload {}, planned memory {:.1f} GB\n", jobs.size(), jobs.size() == 1 ? "" : "s",
                      pipelines::offload_name(memory.offload), static_cast<double>(memory.peak_bytes) / 1e9);
  std::fputs(text.c_str(), stdout);
}

std::optional<pipelines::Offload> asked_offload(const ConfigNode& effective) {
  const std::string name = effective.get_string("offload", "auto");
  if (name == "none") return pipelines::Offload::kNone;
  if (name == "model") return pipelines::Offload::kModel;
  if (name == "layers") return pipelines::Offload::kLayers;
  return std::nullopt;
}

std::filesystem::path embedding_folder(const ConfigNode& effective) {
  const std::string asked = effective.get_string("embedding_cache", "");
  if (asked == "off") return {};
  return asked.empty() ? cache_folder() / "embeddings" : std::filesystem::path(asked);
}

pipelines::MemoryPlan decide_memory(const ConfigNode& effective, const models::ModelFolder& folder,
                                    const std::vector<PreparedJob>& jobs, const pipelines::Device& device) {
  std::vector<const Job*> clips;
  for (const PreparedJob& job : jobs) {
    if (job.error.empty()) clips.push_back(&job.job);
  }
  pipelines::MemoryLimit limit = pipelines::machine_memory();
  if (const double gib = effective.get_number("max_vram_gib", 0); gib > 0) {
    limit.bytes = static_cast<int64_t>(gib * (1 << 30));
    limit.words = "--max-vram allows";
  }
  return pipelines::plan_memory(folder, clips, device, asked_offload(effective), limit);
}

int report_counts(const pipelines::RunCounts& counts, size_t total) {
  if (total > 1 || counts.failed > 0) {
    log_info("{} clips: {} made, {} left as they were, {} failed", total, counts.made, counts.skipped, counts.failed);
  }
  return static_cast<int>(counts.failed > 0 ? ExitCode::kFailed : ExitCode::kDone);
}

pipelines::RunEvents make_events(ProgressLine& line, EventLog& log) {
  pipelines::RunEvents events;
  events.on_job = [&](const PreparedJob& job, int64_t position, int64_t total) {
    line.finish();
    line.set_prefix(total > 1 ? fmt::format("[{}/{}] ", position + 1, total) : "");
    print_notes(job);
    log_info("{}{}: {}", total > 1 ? fmt::format("[{}/{}] ", position + 1, total) : "", job.job.request.output.string(),
             clip_line(job.job));
    log.job(job, position, total);
  };
  events.on_done = [&](const PreparedJob& job, const Result& result) {
    line.finish();
    print_summary(job.job, result);
    log.done(job, result);
  };
  events.on_skip = [&](const PreparedJob& job, const std::string& reason) {
    line.finish();
    log_info("{}", reason);
    log.skipped(job, reason);
  };
  events.on_error = [&](const PreparedJob& job, const std::string& kind, const std::string& message) {
    line.finish();
    log.error(job, kind, message);
  };
  events.progress = line.callbacks();
  const auto show_step = events.progress.on_step;
  events.progress.on_step = [&log, show_step](int step, int steps, double seconds) {
    show_step(step, steps, seconds);
    log.step(step, steps, seconds);
  };
  return events;
}

}  // namespace

int run_generate(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  ProgressLine line(effective.get_bool("quiet", false));
  const pipelines::Device device = device_of(effective);
  EventLog log(effective.get_string("log_json", ""));
  auto folder = open_model(effective.get_string("model", ""));
  const pipelines::RunOptions options{
      .resumes = effective.get_bool("resume", false),
      .skips_existing = effective.get_bool("skip_existing", false),
      .keeps_going = effective.get_bool("keep_going", false),
      .checkpoint_every = static_cast<int>(effective.get_integer("checkpoint_every", 0))};
  pipelines::RunFacts facts{
      .device = device, .model = effective.get_string("model", ""), .build = build_facts(), .machine = machine_facts()};
  const std::vector<PreparedJob> jobs = pipelines::prepare_jobs(pipelines::list_jobs(effective, folder->info().name),
                                                                *folder, options.keeps_going, facts);
  const pipelines::MemoryPlan memory = decide_memory(effective, *folder, jobs, device);
  facts.offload = memory.offload;
  if (effective.get_bool("dry_run", false)) {
    print_list(jobs, memory, options);
    return 0;
  }
  if (!options.keeps_going) {
    for (const PreparedJob& job : jobs) check_before_run(job, options);
  }
  log_debug("offload {}, planned memory {:.2f} GB ({})", pipelines::offload_name(memory.offload),
            static_cast<double>(memory.peak_bytes) / 1e9, memory.stage);
  pipelines::Pipeline pipeline(std::move(folder), {.device = device,
                                                   .offload = memory.offload,
                                                   .embedding_cache = embedding_folder(effective),
                                                   .build = facts.build.get_string("commit", "")});
  const pipelines::RunEvents events = make_events(line, log);
  pipelines::RunEvents loud = events;
  loud.on_error = [&](const PreparedJob& job, const std::string& kind, const std::string& message) {
    events.on_error(job, kind, message);
    // The last error of a run that ends is said by the program itself.
    if (options.keeps_going && kind != "interrupted")
      log_error("clip {} ({}): {}", job.spec.index, job.spec.place, message);
  };
  const pipelines::RunCounts counts = pipelines::run_jobs(pipeline, jobs, facts, options, loud);
  line.finish();
  return report_counts(counts, jobs.size());
}

}  // namespace strobe::tools
