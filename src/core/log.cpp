#include "core/log.h"

#include <atomic>
#include <cstdio>
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

void log_message(LogLevel level, std::string_view message) {
  std::lock_guard lock(sink_mutex);
  if (sink()) {
    sink()(level, message);
    return;
  }
  const char* prefix = level == LogLevel::kError ? "error: " : level == LogLevel::kWarning ? "warning: " : "";
  std::fprintf(stderr, "%s%.*s\n", prefix, static_cast<int>(message.size()), message.data());
}

}  // namespace strobe
