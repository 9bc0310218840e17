// Error types: everything a user can cause is one of these, with a message that says what to change.
//
// Contract  All derive from strobe::Error. `exit_code()` is what the program returns (tools/README.md).
//           STROBE_CHECK is always on and throws ShapeError; STROBE_DCHECK is for hot loops and off in release builds.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace strobe {

enum class ExitCode : int { kDone = 0, kFailed = 1, kUsage = 2, kUnsupported = 3, kInterrupted = 130 };

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = ExitCode::kFailed)
      : std::runtime_error(message), code_(code) {}
  ExitCode exit_code() const { return code_; }

 private:
  ExitCode code_;
};

// A key, value or combination of the configuration or the command line.
class ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message) : Error(message, ExitCode::kUsage) {}
};

// A weights file or a tensor in it. The message names both.
class WeightError : public Error {
 public:
  explicit WeightError(const std::string& message) : Error(message) {}
};

// An argument of one of our functions: a mistake of the caller, not of the user.
class ShapeError : public Error {
 public:
  explicit ShapeError(const std::string& message) : Error(message) {}
};

// No backend, codec or device here can do what was asked. The message lists the candidates and their reasons.
class UnsupportedError : public Error {
 public:
  explicit UnsupportedError(const std::string& message) : Error(message, ExitCode::kUnsupported) {}
};

class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message) : Error(message) {}
};

// Files and FFmpeg. The message names the call, the path and the system's text.
class IoError : public Error {
 public:
  explicit IoError(const std::string& message) : Error(message) {}
};

// IoError "path: call: the system's text".
[[noreturn]] void throw_system(std::string_view call, const std::string& path, int code);

// Ctrl-C.
class InterruptedError : public Error {
 public:
  explicit InterruptedError(const std::string& message) : Error(message, ExitCode::kInterrupted) {}
};

namespace detail {
[[noreturn]] void throw_check_failed(const char* condition, const char* file, int line, const std::string& message);
}

}  // namespace strobe

// Throws ShapeError naming the condition and the formatted message: STROBE_CHECK(x.dim() == 4, "x: expected 4 axes, got
// {}", x.dim()).
#define STROBE_CHECK(condition, ...)                                                                    \
  do {                                                                                                  \
    if (!(condition)) [[unlikely]]                                                                      \
      ::strobe::detail::throw_check_failed(#condition, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (false)

#ifdef STROBE_DCHECKS
#define STROBE_DCHECK(condition, ...) STROBE_CHECK(condition, __VA_ARGS__)
#else
#define STROBE_DCHECK(condition, ...) \
  do {                                \
  } while (false)
#endif
