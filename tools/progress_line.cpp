#include "tools/progress_line.h"

#include <unistd.h>

#include <cstdio>

#include "core/torch.h"
// After the precompiled header.
#include "core/log.h"
#include "tools/app.h"

namespace strobe::tools {
namespace {

std::string format_seconds(double seconds) {
  const auto total = static_cast<int64_t>(seconds + 0.5);
  if (total < 60) return fmt::format("{} s", total);
  if (total < 3600) return fmt::format("{}:{:02} min", total / 60, total % 60);
  return fmt::format("{}:{:02} h", total / 3600, total % 3600 / 60);
}

}  // namespace

ProgressLine::ProgressLine(bool is_quiet) : is_quiet_(is_quiet), is_terminal_(isatty(STDERR_FILENO) != 0) {
  set_log_sink([this](LogLevel level, std::string_view message) {
    // A message must not be glued to the progress line.
    if (has_open_line_) std::fputs("\r\033[K", stderr);
    has_open_line_ = false;
    std::fprintf(stderr, "%s%.*s\n", log_prefix(level), static_cast<int>(message.size()), message.data());
  });
}

ProgressLine::~ProgressLine() {
  finish();
  set_log_sink({});
}

void ProgressLine::finish() {
  if (has_open_line_) std::fputc('\n', stderr);
  has_open_line_ = false;
}

void ProgressLine::show(const std::string& line, double fraction) {
  if (is_quiet_) return;
  const std::string text = prefix_ + line;
  if (is_terminal_) {
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    std::fflush(stderr);
    has_open_line_ = true;
    return;
  }
  const int tenth = static_cast<int>(fraction * 10.0 + 1e-9);
  if (tenth == last_tenth_) return;
  last_tenth_ = tenth;
  std::fprintf(stderr, "%s\n", text.c_str());
}

void ProgressLine::show_count(const std::string& what, int64_t done, int64_t total) {
  show(fmt::format("{} {}/{}", what, done, total), static_cast<double>(done) / static_cast<double>(total));
}

void ProgressLine::show_bytes(const std::string& what, uint64_t done, uint64_t total) {
  const double all = static_cast<double>(std::max<uint64_t>(total, 1));
  show(fmt::format("{} {:.2f}/{:.2f} GB", what, static_cast<double>(done) / 1e9, all / 1e9),
       static_cast<double>(done) / all);
}

pipelines::Progress ProgressLine::callbacks() {
  pipelines::Progress progress;
  progress.on_stage = [this](const std::string& stage) {
    finish();
    stage_ = stage;
    last_tenth_ = -1;
    step_seconds_ = 0;
    steps_seen_ = 0;
    log_debug("stage: {}", stage);
  };
  progress.on_texts = [this](int64_t done, int64_t total) {
    if (total > 2) show(fmt::format("text {}/{}", done, total), static_cast<double>(done) / static_cast<double>(total));
  };
  progress.on_step = [this](const pipelines::StepReport& r) {
    step_seconds_ += r.seconds;
    const double mean = step_seconds_ / ++steps_seen_;
    std::string attention;
    if (r.methods != "dense" && !r.methods.empty()) {
      attention = fmt::format("  {} density {:.3f}, {} plans in {:.0f} ms, {} cached", r.methods, r.density, r.plans,
                              r.selection_ms, r.cache_hits);
    }
    show(fmt::format("denoise {}/{}  {:.2f} s/it  ETA {}{}  peak {:.1f} GiB", r.step, r.steps, r.seconds,
                     format_seconds(mean * (r.steps - r.step)), attention,
                     static_cast<double>(pipelines::peak_memory_bytes()) / (1 << 30)),
         static_cast<double>(r.step) / r.steps);
  };
  progress.on_frames = [this](int64_t frames, int64_t total) {
    if (total > 0) {
      show(fmt::format("{} {}/{} frames", stage_, frames, total),
           static_cast<double>(frames) / static_cast<double>(total));
    } else {
      show(fmt::format("{} {} frames", stage_, frames), 0);
    }
  };
  progress.is_interrupted = [] { return tools::is_interrupted(); };
  return progress;
}

}  // namespace strobe::tools
