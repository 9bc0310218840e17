// strobe generate: prompts to videos.
#include <fmt/ranges.h>

#include <cstdio>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "tools/app.h"
#include "tools/clip_setup.h"
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

std::string note_text(const attention::AttentionRow& row) {
  std::string text = row.note.empty() ? "" : " (" + row.note + ")";
  if (!row.passed_over.empty()) text += " (passed over: " + row.passed_over + ")";
  return text;
}

void print_summary(const Job& job, const Result& result) {
  const auto& t = result.times;
  for (const attention::AttentionRow& row : result.attention) {
    log_debug("{} attention: {} by {}, {} calls, density {:.3f}, {:.1f} s{}", row.kind, row.pattern, row.backend,
              row.calls, row.density(), row.milliseconds / 1e3, note_text(row));
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
    text +=
        fmt::format("{:>5}  {}\n       \"{}\" ({})\n       {}\n       attention {}, request {}\n", prepared.spec.index,
                    job.request.output.string(), job.request.prompt, prepared.spec.place, clip_line(job),
                    fmt::format("{}", fmt::join(job.request.attention, " + ")), prepared.request_hash);
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

int report_counts(const pipelines::RunCounts& counts, size_t total) {
  if (total > 1 || counts.failed > 0) {
    log_info("{} clips: {} made, {} left as they were, {} failed", total, counts.made, counts.skipped, counts.failed);
  }
  return static_cast<int>(counts.failed > 0 ? ExitCode::kFailed : ExitCode::kDone);
}

pipelines::RunEvents make_events(ProgressLine& line, EventLog& log, bool keeps_going) {
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
  events.on_error = [&, keeps_going](const PreparedJob& job, const std::string& kind, const std::string& message) {
    line.finish();
    log.error(job, kind, message);
    // The error that ends a run is said by the program itself.
    if (keeps_going && kind != "interrupted") {
      log_error("clip {} ({}): {}", job.spec.index, job.spec.place, message);
    }
  };
  events.progress = line.callbacks();
  const auto show_step = events.progress.on_step;
  events.progress.on_step = [&log, show_step](const pipelines::StepReport& report) {
    show_step(report);
    log.step(report);
  };
  return events;
}

}  // namespace

int run_generate(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  ProgressLine line(effective.get_bool("quiet", false));
  EventLog log(effective.get_string("log_json", ""));
  const pipelines::RunOptions options{
      .resumes = effective.get_bool("resume", false),
      .skips_existing = effective.get_bool("skip_existing", false),
      .keeps_going = effective.get_bool("keep_going", false),
      .checkpoint_every = static_cast<int>(effective.get_integer("checkpoint_every", 0))};
  ClipSetup setup = set_up_clips(effective, options.keeps_going);
  if (effective.get_bool("dry_run", false)) {
    print_list(setup.jobs, setup.memory, options);
    return 0;
  }
  if (!options.keeps_going) {
    for (const PreparedJob& job : setup.jobs) check_before_run(job, options);
  }
  pipelines::Pipeline pipeline = make_pipeline(setup, effective);
  const pipelines::RunCounts counts =
      pipelines::run_jobs(pipeline, setup.jobs, setup.facts, options, make_events(line, log, options.keeps_going));
  line.finish();
  return report_counts(counts, setup.jobs.size());
}

}  // namespace strobe::tools
