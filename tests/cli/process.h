// Runs a program as a user would: arguments, environment, both streams, exit code.
#pragma once

#include <csignal>
#include <map>
#include <string>
#include <vector>

namespace strobe::test {

struct ProcessResult {
  int exit_code = -1;  // 128 + signal for a process that a signal ended
  std::string out;
  std::string err;
};

struct ProcessOptions {
  std::map<std::string, std::string> environment;  // added to ours
  std::string folder;                              // working folder; empty: ours
  std::string interrupt_after;                     // a signal once this text stands on stderr
  int signal = SIGINT;                             // the one
  int signals = 1;                                 // how many of them, a moment apart
  int timeout_seconds = 120;                       // killed then
};

ProcessResult run_process(const std::vector<std::string>& arguments, const ProcessOptions& options = {});

}  // namespace strobe::test
