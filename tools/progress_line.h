// Progress on stderr: one rewritten line on a terminal, a plain line per tenth elsewhere, nothing when quiet.
#pragma once

#include <string>

#include "pipelines/pipeline.h"

namespace strobe::tools {

class ProgressLine {
 public:
  explicit ProgressLine(bool is_quiet);
  ~ProgressLine();
  pipelines::Progress callbacks();
  // What stands before every line: "[3/12] ".
  void set_prefix(const std::string& prefix) { prefix_ = prefix; }
  void show_count(const std::string& what, int64_t done, int64_t total);
  void show_bytes(const std::string& what, uint64_t done, uint64_t total);
  void finish();

 private:
  void show(const std::string& text, double fraction);
  bool is_quiet_;
  bool is_terminal_;
  bool has_open_line_ = false;
  int last_tenth_ = -1;
  double step_seconds_ = 0;  // sum of the steps so far
  int steps_seen_ = 0;
  std::string stage_, prefix_;
};

}  // namespace strobe::tools
