// Talk: messages for the person at the terminal. They go to a sink that the program sets; the default writes to stderr.
//
// Data never goes through here. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>

namespace strobe {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

using LogSink = std::function<void(LogLevel, std::string_view)>;

// Replaces the sink; an empty function restores the default one.
void set_log_sink(LogSink sink);

// Messages below `level` are dropped before they are formatted.
void set_log_level(LogLevel level);
LogLevel log_level();

void log_message(LogLevel level, std::string_view message);

// "error: ", "warning: " or nothing; in colour where stderr is a terminal that has them (NO_COLOR refuses).
const char* log_prefix(LogLevel level);

template <class... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() <= LogLevel::kDebug) log_message(LogLevel::kDebug, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() <= LogLevel::kInfo) log_message(LogLevel::kInfo, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() <= LogLevel::kWarning)
    log_message(LogLevel::kWarning, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::kError, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace strobe
