#include "pipelines/runner.h"

#include <sys/statvfs.h>

#include <set>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/lock_file.h"
#include "core/log.h"
#include "core/output_file.h"
#include "pipelines/output_names.h"
#include "pipelines/plan.h"

namespace strobe::pipelines {
namespace {

namespace fs = std::filesystem;

constexpr size_t kHashShown = 8;

enum class State {
  kNew,
  kFinished,   // video and side-car of this request
  kContinues,  // a checkpoint of this request
};

// The path that names a clip: the video, or the latents where no video is asked for.
const fs::path& main_output(const Request& request) {
  return request.output.empty() ? request.save_latents : request.output;
}

bool has_output(const fs::path& output) {
  std::error_code error;
  const fs::path path = output.has_filename() ? output : output.parent_path();
  if (path.filename().string().find("{frame") != std::string::npos) return fs::exists(path.parent_path(), error);
  return fs::exists(path, error);
}

State state_of(const PreparedJob& job, const RunOptions& options) {
  const fs::path& output = main_output(job.job.request);
  if (options.resumes || options.skips_existing) {
    const ConfigNode side_car = find_side_car(output);
    if (has_output(output) && side_car.is_map() && side_car.get_string("request_hash", "") == job.request_hash) {
      return State::kFinished;
    }
  }
  std::error_code error;
  if (options.resumes && fs::exists(checkpoint_path(job), error)) return State::kContinues;
  return State::kNew;
}

// What the outputs may take: an estimate on the low side, since a refusal must be right.
int64_t output_bytes(const Job& job) {
  const int64_t raw = job.num_frames * job.height * job.width * 3;
  const int64_t latents = checkpoint_bytes(job.latent_shape);
  return latents + (job.request.is_lossless ? raw / 5 : raw / 500);
}

void check_space(const PreparedJob& job) {
  const fs::path folder = folder_of(clip_stem(main_output(job.job.request)));
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return;  // the folder is yet to be made
  const auto free_bytes = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  const int64_t needed = output_bytes(job.job);
  if (free_bytes >= needed) return;
  throw IoError(fmt::format("{}: {:.1f} MB free, the clip and its checkpoint need at least {:.1f} MB", folder.string(),
                            static_cast<double>(free_bytes) / 1e6, static_cast<double>(needed) / 1e6));
}

void make_folders(const PreparedJob& job) {
  for (const fs::path& folder : job.spec.new_folders) {
    std::error_code error;
    if (fs::exists(folder, error)) continue;
    fs::create_directory(folder, error);
    if (error) throw IoError(fmt::format("{}: mkdir: {}", folder.string(), error.message()));
  }
}

bool is_yet_to_be_made(const PreparedJob& job, const fs::path& folder) {
  std::error_code error;
  const auto& folders = job.spec.new_folders;
  return !fs::exists(folder, error) && std::find(folders.begin(), folders.end(), folder) != folders.end();
}

std::string error_class(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error)) return "out-of-memory";
  if (const auto* ours = dynamic_cast<const Error*>(&error)) {
    switch (ours->exit_code()) {
      case ExitCode::kUsage:
        return "config";
      case ExitCode::kUnsupported:
        return "unsupported";
      case ExitCode::kInterrupted:
        return "interrupted";
      default:
        break;
    }
  }
  if (dynamic_cast<const WeightError*>(&error)) return "weights";
  if (dynamic_cast<const IoError*>(&error)) return "io";
  return "failed";
}

// What sizes alone tell of a clip's attention, before any weight is read: once for clips with one plan.
class AttentionCheck {
 public:
  AttentionCheck(const models::ModelFolder& folder, const Device& device) : folder_(folder), device_(device) {}

  void check(const Job& job) {
    if (attention_rules(job.request).empty() && job.request.attention_backend == "auto") return;
    const PlanKey key = plan_key(job);
    if (checked_.contains(key)) return;
    const Plan plan =
        make_plan(folder_, job.request, {.device = device_}, {.linear = 1, .attention = 1, .convolution = 1});
    for (const std::string& text : plan.attention.warnings) {
      if (said_.insert(text).second) log_warning("{}", text);
    }
    checked_.insert(key);
  }

 private:
  const models::ModelFolder& folder_;
  const Device& device_;
  std::set<PlanKey> checked_;
  std::set<std::string> said_;
};

enum class Outcome { kMade, kSkipped };

// One clip at work.
class ClipRun {
 public:
  ClipRun(Pipeline& pipeline, const PreparedJob& job, const RunFacts& facts, const RunOptions& options,
          const RunEvents& events)
      : pipeline_(pipeline), job_(job), facts_(facts), options_(options), events_(events) {}

  // `keeps_parts`: more clips follow. `announce` is called before the work of a clip that is not skipped.
  Outcome run(bool keeps_parts, const std::function<void()>& announce) {
    const fs::path& output = main_output(job_.job.request);
    make_folders(job_);
    const fs::path lock_path = lock_beside(clip_stem(output));
    const std::optional<LockFile> lock = LockFile::try_lock(lock_path);
    if (!lock) {
      const std::optional<pid_t> holder = LockFile::holder_of(lock_path);
      const std::string reason = fmt::format("{}: another strobe is making it{}", output.string(),
                                             holder ? fmt::format(" (process {})", *holder) : "");
      if (options_.skips_existing || options_.resumes) return skip(reason);
      throw IoError(reason);
    }
    if (options_.resumes) remove_stale_temporaries(clip_stem(output));
    const State state = state_of(job_, options_);
    if (state == State::kFinished) return skip(fmt::format("{}: finished already, left as it is", output.string()));
    ClipOptions clip{.keeps_parts = keeps_parts,
                     .checkpoint = checkpoint_path(job_),
                     .checkpoint_every = options_.checkpoint_every,
                     .request_hash = job_.request_hash};
    if (state == State::kContinues) clip.start = read_checkpoint(clip.checkpoint);
    Job job = job_.job;
    if (clip.start) job.request.may_overwrite = true;  // what the run that was cut short left
    check_outputs(job, job.request.may_overwrite);
    check_space(job_);
    announce();
    make(job, clip);
    return Outcome::kMade;
  }

 private:
  Outcome skip(const std::string& reason) {
    if (events_.on_skip) events_.on_skip(job_, reason);
    return Outcome::kSkipped;
  }

  std::optional<Checkpoint> read_checkpoint(const fs::path& path) {
    std::optional<Checkpoint> start = load_checkpoint(path, job_.request_hash);
    if (!start) return start;
    const bool fits = start->steps == job_.job.num_inference_steps && start->state.step <= start->steps &&
                      start->state.x.sizes() == at::IntArrayRef(job_.job.latent_shape);
    if (!fits) throw WeightError(fmt::format("{}: the checkpoint does not fit its request", path.string()));
    log_info("{}: going on after step {} of {}", main_output(job_.job.request).string(), start->state.step,
             start->steps);
    return start;
  }

  void make(const Job& job, ClipOptions& clip) {
    std::string text;
    const auto describe = [&](const Result& result) {
      text = side_car_text({.job = job_.job,
                            .effective = job_.spec.effective,
                            .place = job_.spec.place,
                            .info = pipeline_.info(),
                            .facts = facts_,
                            .request_hash = job_.request_hash,
                            .result = result});
      return text;
    };
    clip.comment = describe;
    Result result;
    try {
      result = pipeline_.generate(job, clip, events_.progress);
    } catch (const Error& error) {
      std::error_code ignored;
      if (!fs::exists(clip.checkpoint, ignored)) throw;
      throw Error(fmt::format("{}; the work so far is kept in {}: the same command with --resume goes on from it",
                              error.what(), clip.checkpoint.string()),
                  error.exit_code());
    }
    if (text.empty()) describe(result);
    write_file(side_car_path(main_output(job_.job.request)), text);
    std::error_code ignored;
    fs::remove(clip.checkpoint, ignored);
    if (events_.on_done) events_.on_done(job_, result);
  }

  Pipeline& pipeline_;
  const PreparedJob& job_;
  const RunFacts& facts_;
  const RunOptions& options_;
  const RunEvents& events_;
};

}  // namespace

fs::path checkpoint_path(const PreparedJob& job) {
  fs::path path = clip_stem(main_output(job.job.request));
  path += "." + job.request_hash.substr(0, kHashShown) + ".checkpoint";
  return path;
}

std::vector<PreparedJob> prepare_jobs(std::vector<JobSpec> specs, const models::ModelFolder& folder, bool keeps_going,
                                      RunFacts& facts) {
  add_fingerprints(folder, facts);
  const bool is_list = specs.size() > 1;
  AttentionCheck attention(folder, facts.device);
  std::vector<PreparedJob> jobs;
  for (JobSpec& spec : specs) {
    PreparedJob job{.spec = std::move(spec)};
    job.error = job.spec.error;
    if (job.error.empty()) {
      try {
        job.job = resolve_clip(job.spec.request, folder.info());
        attention.check(job.job);
        add_fingerprints(job.job, facts);
        job.request_hash = request_hash(job.job, facts);
      } catch (const Error& error) {
        const std::string message = is_list ? fmt::format("{}: {}", job.spec.place, error.what()) : error.what();
        if (!keeps_going) throw Error(message, error.exit_code());
        job.error = message;
      }
    }
    if (!job.error.empty() && !keeps_going) throw ConfigError(job.error);
    jobs.push_back(std::move(job));
  }
  return jobs;
}

void check_before_run(const PreparedJob& job, const RunOptions& options) {
  const State state = state_of(job, options);
  if (state == State::kFinished) return;
  // A folder that is yet to be made is looked at by its parent.
  const fs::path folder = folder_of(clip_stem(main_output(job.job.request)));
  if (is_yet_to_be_made(job, folder)) {
    check_folder_writable(folder_of(folder));
    return;
  }
  check_outputs(job.job, job.job.request.may_overwrite || state == State::kContinues);
  check_space(job);
}

RunCounts run_jobs(Pipeline& pipeline, const std::vector<PreparedJob>& jobs, const RunFacts& facts,
                   const RunOptions& options, const RunEvents& events) {
  RunCounts counts;
  const auto total = static_cast<int64_t>(jobs.size());
  std::vector<const Job*> announced;
  for (const PreparedJob& job : jobs) {
    if (job.error.empty() && state_of(job, options) != State::kFinished) announced.push_back(&job.job);
  }
  pipeline.announce(announced);
  for (int64_t i = 0; i < total; ++i) {
    const PreparedJob& job = jobs[static_cast<size_t>(i)];
    const auto fail = [&](const std::string& kind, const std::string& message) {
      if (events.on_error) events.on_error(job, kind, message);
      ++counts.failed;
    };
    if (!job.error.empty()) {
      fail("config", job.error);
      continue;
    }
    try {
      ClipRun clip(pipeline, job, facts, options, events);
      const Outcome outcome = clip.run(/*keeps_parts=*/i + 1 < total, [&] {
        if (events.on_job) events.on_job(job, i, total);
      });
      ++(outcome == Outcome::kMade ? counts.made : counts.skipped);
    } catch (const InterruptedError& error) {
      if (events.on_error) events.on_error(job, error_class(error), error.what());
      throw;
    } catch (const std::exception& error) {
      fail(error_class(error), error.what());
      if (!options.keeps_going) throw;
    }
  }
  return counts;
}

}  // namespace strobe::pipelines
