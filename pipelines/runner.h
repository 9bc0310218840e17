// Makes a list of clips: one load of the model for all of them, and nothing that was made is lost.
//
// Contract  Before any work, every clip is decided and its outputs are looked at. A clip is made under a lock beside its
//           output; its side-car is written after the video, and its checkpoint removed last, so that after a kill at any
//           moment a clip is finished (video and side-car), or can be continued by `resumes`, or starts anew.
//           A finished clip is one whose side-car holds the same request hash. Events are told as they happen.
// Errors    Those of the first clip that fails, with what is kept of it; with `keeps_going` the others are made, and
//           failures are counted. InterruptedError always ends the list.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pipelines/job_list.h"
#include "pipelines/side_car.h"

namespace strobe::pipelines {

// A clip with everything decided.
struct PreparedJob {
  JobSpec spec;
  Job job;
  std::string request_hash;
  std::string error;  // why it cannot be made
};

// Decides every clip; fills `facts` with the fingerprints that their hashes need. The error of the first that cannot be,
// unless `keeps_going`; what its attention cannot do is among them, and what it warns of is said once.
std::vector<PreparedJob> prepare_jobs(std::vector<JobSpec> specs, const models::ModelFolder& folder, bool keeps_going,
                                      RunFacts& facts);

struct RunOptions {
  bool resumes = false;
  bool skips_existing = false;
  bool keeps_going = false;
  int checkpoint_every = 0;  // steps; 0: as many as take a minute
};

// What the caller is told. Any may be empty.
struct RunEvents {
  std::function<void(const PreparedJob& job, int64_t position, int64_t total)> on_job;  // before its work
  std::function<void(const PreparedJob& job, const Result& result)> on_done;
  std::function<void(const PreparedJob& job, const std::string& reason)> on_skip;
  // `kind` is "config", "unsupported", "weights", "io", "out-of-memory", "interrupted" or "failed".
  std::function<void(const PreparedJob& job, const std::string& kind, const std::string& message)> on_error;
  Progress progress;
};

struct RunCounts {
  int64_t made = 0, skipped = 0, failed = 0;
};

// Throws what would keep the clip from being made: outputs that exist, cannot be written or do not fit the disk.
void check_before_run(const PreparedJob& job, const RunOptions& options);

RunCounts run_jobs(Pipeline& pipeline, const std::vector<PreparedJob>& jobs, const RunFacts& facts,
                   const RunOptions& options, const RunEvents& events);

// Where a clip's state is kept while it is made: "clips/a.mp4.1f3a09bc.checkpoint".
std::filesystem::path checkpoint_path(const PreparedJob& job);

}  // namespace strobe::pipelines
