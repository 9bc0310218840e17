#include "tools/event_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "weights/json.h"

namespace strobe::tools {
namespace {

ConfigNode text(const std::string& value) { return ConfigNode::string(value); }
ConfigNode integer(int64_t value) { return ConfigNode::integer(value); }
ConfigNode number(double value) { return ConfigNode::number(value); }

std::string now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char buffer[32];
  return {buffer, std::strftime(buffer, sizeof(buffer), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace

EventLog::EventLog(const std::filesystem::path& path) : path_(path) {
  if (path.empty()) return;
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw IoError(fmt::format("--log-json {}: {}", path.string(), std::strerror(errno)));
}

EventLog::~EventLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EventLog::write(const std::string& event, ConfigNode::Map fields) {
  if (descriptor_ < 0) return;
  ConfigNode::Map all = {{"event", text(event)}, {"time", text(now())}, {"index", integer(index_)}};
  all.insert(all.end(), std::make_move_iterator(fields.begin()), std::make_move_iterator(fields.end()));
  const std::string line = weights::to_json(ConfigNode::map(std::move(all)), /*indent=*/-1) + "\n";
  // One call a line: lines of several processes in one file do not mix.
  if (::write(descriptor_, line.data(), line.size()) == static_cast<ssize_t>(line.size())) return;
  log_warning("--log-json {}: {}; no more events are written", path_.string(), std::strerror(errno));
  ::close(std::exchange(descriptor_, -1));
}

void EventLog::job(const pipelines::PreparedJob& job, int64_t position, int64_t total) {
  index_ = job.spec.index;
  write("job", {{"position", integer(position)},
                {"total", integer(total)},
                {"place", text(job.spec.place)},
                {"output", text(job.job.request.output.string())},
                {"request_hash", text(job.request_hash)},
                {"prompt", text(job.job.request.prompt)},
                {"seed", integer(static_cast<int64_t>(job.job.request.seed))}});
}

void EventLog::step(const pipelines::StepReport& report) {
  write("step", {{"step", integer(report.step)},
                 {"steps", integer(report.steps)},
                 {"seconds", number(report.seconds)},
                 {"methods", text(report.methods)},
                 {"density", number(report.density)},
                 {"plans", integer(report.plans)},
                 {"cache_hits", integer(report.cache_hits)},
                 {"selection_ms", number(report.selection_ms)}});
}

void EventLog::done(const pipelines::PreparedJob& job, const pipelines::Result& result) {
  index_ = job.spec.index;
  double pairs = 0, dense = 0;
  for (const attention::SiteRow& site : result.sites) {
    pairs += site.pairs;
    dense += site.dense_pairs;
  }
  const auto& t = result.times;
  write("done", {{"output", text(job.job.request.output.string())},
                 {"frames", integer(result.frames)},
                 {"frame_sha256", text(result.frame_sha256)},
                 {"times_ms", ConfigNode::map({{"load", number(t.load_ms)},
                                               {"text", number(t.text_ms)},
                                               {"denoise", number(t.denoise_ms)},
                                               {"decode", number(t.decode_ms)},
                                               {"encode", number(t.encode_ms)},
                                               {"total", number(t.total_ms)}})},
                 {"density", number(dense > 0 ? pairs / dense : 1.0)},
                 {"peak_memory_bytes", integer(result.peak_memory_bytes)}});
}

void EventLog::skipped(const pipelines::PreparedJob& job, const std::string& reason) {
  index_ = job.spec.index;
  write("skip", {{"reason", text(reason)}});
}

void EventLog::error(const pipelines::PreparedJob& job, const std::string& kind, const std::string& message) {
  index_ = job.spec.index;
  write("error", {{"class", text(kind)}, {"place", text(job.spec.place)}, {"message", text(message)}});
}

}  // namespace strobe::tools
