// --log-json: one JSON object a line per event, flushed as it happens.
//
// Events    job {index, position, total, place, output, request_hash, prompt, seed}; step {index, step, steps, seconds};
//           done {index, output, frames, frame_sha256, times_ms, peak_memory_bytes, density}; skip {index, reason};
//           error {index, class, message}. Every line has `event` and `time` (UTC).
#pragma once

#include <filesystem>
#include <string>

#include "pipelines/runner.h"

namespace strobe::tools {

class EventLog {
 public:
  // Appends to the file; empty: no log. IoError if it cannot be opened.
  explicit EventLog(const std::filesystem::path& path);
  ~EventLog();
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  void job(const pipelines::PreparedJob& job, int64_t position, int64_t total);
  void step(const pipelines::StepReport& report);
  void done(const pipelines::PreparedJob& job, const pipelines::Result& result);
  void skipped(const pipelines::PreparedJob& job, const std::string& reason);
  void error(const pipelines::PreparedJob& job, const std::string& kind, const std::string& message);

 private:
  void write(const std::string& event, ConfigNode::Map fields);
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t index_ = 0;
};

}  // namespace strobe::tools
