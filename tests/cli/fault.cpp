#include "tests/cli/fault.h"

#include <algorithm>
#include <fstream>

namespace strobe::test {

ProcessOptions with_fault(const std::filesystem::path& watched, const Fault& fault) {
  ProcessOptions options;
  options.environment = {{"LD_PRELOAD", STROBE_FAULT_PRELOAD},
                         {"STROBE_FAULT_FOLDER", std::filesystem::canonical(watched).string()},
                         {"STROBE_FAULT", fault.kind},
                         {"STROBE_FAULT_AT", std::to_string(fault.at)}};
  return options;
}

ProcessOptions with_event_count(const std::filesystem::path& watched, const std::filesystem::path& report) {
  ProcessOptions options = with_fault(watched, {.kind = "count"});
  options.environment["STROBE_FAULT_REPORT"] = report.string();
  return options;
}

std::vector<std::string> read_events(const std::filesystem::path& report) {
  std::vector<std::string> events;
  std::ifstream in(report);
  for (std::string line; std::getline(in, line);) events.push_back(line);
  return events;
}

std::vector<size_t> spread(size_t total, size_t count) {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < count && total > 0; ++i) {
    const size_t event = 1 + i * (total - 1) / std::max<size_t>(count - 1, 1);
    if (chosen.empty() || chosen.back() != event) chosen.push_back(event);
  }
  return chosen;
}

}  // namespace strobe::test
