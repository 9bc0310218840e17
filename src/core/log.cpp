#include "core/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace strobe {
namespace {

std::mutex sink_mutex;
std::atomic<LogLevel> minimum_level{LogLevel::kInfo};

LogSink& sink() {
  static LogSink instance;
  return instance;
}

}  // namespace

void set_log_sink(LogSink new_sink) {
  std::lock_guard lock(sink_mutex);
  sink() = std::move(new_sink);
}

void set_log_level(LogLevel level) { minimum_level = level; }
LogLevel log_level() { return minimum_level; }

const char* log_prefix(LogLevel level) {
  if (level < LogLevel::kWarning) return "";
  static const bool is_coloured = [] {
    const char* refused = std::getenv("NO_COLOR");
    const char* terminal = std::getenv("TERM");
    return isatty(STDERR_FILENO) != 0 && (!refused || !*refused) && terminal && std::string_view(terminal) != "dumb";
  }();
  const bool is_error = level == LogLevel::kError;
  if (!is_coloured) return is_error ? "error: " : "warning: ";
  return is_error ? "\033[1;31merror:\033[0m " : "\033[1;33mwarning:\033[0m ";
}

void log_message(LogLevel level, std::string_view message) {
  std::lock_guard lock(sink_mutex);
  if (sink()) {
    sink()(level, message);
    return;
  }
  std::fprintf(stderr, "%s%.*s\n", log_prefix(level), static_cast<int>(message.size()), message.data());
}

}  // namespace strobe
