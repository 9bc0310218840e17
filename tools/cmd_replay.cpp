// strobe replay: a clip again, from what the clip says of itself.
#include <unistd.h>

#include <cstdio>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "core/output_file.h"
#include "pipelines/generate_keys.h"
#include "pipelines/output_names.h"
#include "tools/app.h"
#include "tools/clip_setup.h"
#include "tools/progress_line.h"
#include "video/video_reader.h"
#include "weights/json.h"

namespace strobe::tools {
namespace {

namespace fs = std::filesystem;

ConfigNode read_record(const fs::path& clip) {
  std::error_code error;
  ConfigNode record;
  if (clip.extension() == ".json") {
    record = weights::load_json(clip);
  } else {
    record = pipelines::find_side_car(clip);
    if (record.is_null() && fs::is_regular_file(clip, error)) {
      const std::string comment = video::read_comment(clip);
      if (!comment.empty()) record = weights::parse_json(comment, clip.string() + " (comment tag)");
    }
    if (record.is_null()) {
      if (!fs::exists(clip, error)) throw ConfigError(fmt::format("{}: no such file", clip.string()));
      throw ConfigError(fmt::format("{}: neither a side-car beside it nor a comment tag in it", clip.string()));
    }
  }
  if (record.get_string("kind", "") != pipelines::kSideCarKind) {
    throw ConfigError(fmt::format("{}: not what `strobe generate` writes", clip.string()));
  }
  return record;
}

std::string quoted(const std::string& text) {
  const bool is_plain =
      !text.empty() &&
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,=+@%") ==
          std::string::npos;
  if (is_plain) return text;
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string scalar_text(const ConfigNode& value) {
  if (value.is_string()) return value.as_string();
  return weights::to_json(value, /*indent=*/-1);
}

std::string command_of(const ConfigNode& settings) {
  std::string text = "strobe generate";
  for (const auto& [name, value] : settings.as_map()) {
    const std::string flag = config::long_flag(*pipelines::generate_keys().find(name));
    if (value.is_bool()) {
      if (value.as_bool()) text += " " + flag;
      continue;
    }
    for (const ConfigNode& one : value.is_list() ? value.as_list() : ConfigNode::List{value}) {
      text += fmt::format(" {} {}", flag, quoted(scalar_text(one)));
    }
  }
  return text;
}

// Threads of the recorded run; 0 where it does not say.
int64_t recorded_threads(const ConfigNode& record) {
  const ConfigNode* ran = record.find("ran");
  return ran && ran->is_map() ? ran->get_integer("threads", 0) : 0;
}

// The settings of the clip, with the output and the machine's settings of this command over them. Sums depend on how
// they are shared between threads, so the recorded number counts unless another is given.
ConfigNode settings_of(const ConfigNode& record, const ConfigNode& effective, const fs::path& output) {
  const config::KeyTable& table = pipelines::generate_keys();
  ConfigNode settings = table.checked(record.at("request"));
  std::error_code error;
  const std::string asked = effective.get_string("model", ""), known = settings.get_string("model", "");
  const std::string folder = record.at("model").get_string("folder", "");
  if (!asked.empty()) {
    settings.set("model", ConfigNode::string(asked));
  } else if (!known.empty() && !fs::exists(known, error)) {
    settings.set("model", ConfigNode::string(folder));
  }
  for (const char* name : {"device", "dtype", "threads", "offload", "max_vram_gib", "quiet", "verbose"}) {
    const ConfigNode* given = effective.find(name);
    if (given && given->origin() != "default") settings.set(name, *given);
  }
  if (const int64_t threads = recorded_threads(record); threads > 0 && !settings.find("threads")) {
    settings.set("threads", table.checked(ConfigNode::map({{"threads", ConfigNode::integer(threads)}})).at("threads"));
  }
  settings.set("output", ConfigNode::string(output.string()));
  settings.set("embedding_cache", ConfigNode::string("off"));
  return table.with_defaults(settings);
}

void warn_of_differences(const ConfigNode& record, const pipelines::RunFacts& facts) {
  for (const auto& [part, hash] : facts.weights) {
    const ConfigNode* weights = record.at("model").find("weights");
    if (weights && weights->get_string(part, "") != hash) log_warning("the weights of {} are others than then", part);
  }
  const std::string then = record.find("build") ? record.at("build").get_string("commit", "") : "";
  const std::string now = facts.build.get_string("commit", "");
  if (then != now) log_warning("made by commit {}, this is {}", then, now);
  const std::string cpu = record.find("machine") ? record.at("machine").get_string("libtorch_kernels", "") : "";
  const std::string here = facts.machine.get_string("libtorch_kernels", "");
  if (cpu != here) log_warning("made with {} kernels, here are {}: the last bits may differ", cpu, here);
  const int64_t threads = recorded_threads(record);
  if (threads > 0 && threads != at::get_num_threads()) {
    log_warning("made with {} thread{}, --threads asks for {}: the last bits may differ", threads,
                threads == 1 ? "" : "s", at::get_num_threads());
  }
}

// A folder that goes with its object.
struct ScratchFolder {
  fs::path path;
  explicit ScratchFolder(bool is_wanted) {
    if (!is_wanted) return;
    path = fs::temp_directory_path() / fmt::format("strobe-replay-{}", ::getpid());
    fs::create_directories(path);
  }
  ~ScratchFolder() {
    std::error_code error;
    if (!path.empty()) fs::remove_all(path, error);
  }
};

fs::path new_output(const ConfigNode& record, const fs::path& folder) {
  const std::string name = record.get_string("output", "clip.mkv");
  if (name.ends_with('/')) return (folder / "frames").string() + "/";
  return folder / (name.find('{') == std::string::npos ? name : "{frame:05}.png");
}

int compare(const ConfigNode& record, const pipelines::Result& result, const fs::path& clip) {
  const std::string then = record.get_string("frame_sha256", "");
  if (result.frame_sha256 == then) {
    log_info("the same {} frames, bit for bit ({})", result.frames, then);
    return 0;
  }
  log_error("{}: the frames differ: then {}, now {}", clip.string(), then, result.frame_sha256);
  return static_cast<int>(ExitCode::kFailed);
}

}  // namespace

int run_replay(const Invocation& invocation) {
  const ConfigNode effective = invocation.effective();
  set_up_run(effective);
  const fs::path clip = invocation.positional("CLIP");
  const ConfigNode record = read_record(clip);
  const std::string asked = effective.get_string("output", "");
  const bool is_dry = effective.get_bool("dry_run", false);
  const ScratchFolder scratch(asked.empty() && !is_dry);
  const fs::path output = asked.empty() ? new_output(record, is_dry ? "again" : scratch.path) : fs::path(asked);
  ConfigNode settings = settings_of(record, effective, output);
  if (effective.get_bool("overwrite", false)) settings.set("overwrite", ConfigNode::boolean(true));
  ConfigNode shown = ConfigNode::map();
  for (const auto& [name, value] : settings.as_map()) {
    if (value.origin() != "default") shown.set(name, value);
  }
  if (is_dry) {
    std::fputs((command_of(shown) + "\n").c_str(), stdout);
    return 0;
  }
  log_info("{}", command_of(shown));
  set_threads(settings);
  ProgressLine line(effective.get_bool("quiet", false));
  ClipSetup setup = set_up_clips(settings, /*keeps_going=*/false);
  warn_of_differences(record, setup.facts);
  pipelines::Pipeline pipeline = make_pipeline(setup, settings);
  int code = static_cast<int>(ExitCode::kFailed);
  pipelines::RunEvents events;
  events.progress = line.callbacks();
  events.on_done = [&](const pipelines::PreparedJob&, const pipelines::Result& result) {
    line.finish();
    code = compare(record, result, clip);
  };
  pipelines::run_jobs(pipeline, setup.jobs, setup.facts, {}, events);
  return code;
}

}  // namespace strobe::tools
