#include "tools/app.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/log.h"
#include "core/output_file.h"
#include "kernels/common/machine.h"
#include "pipelines/memory_plan.h"
#include "tools/build_info.h"
#include "video/video_writer.h"

namespace strobe::tools {
namespace {

std::atomic<int> interrupts{0};

void on_signal(int signal_number) {
  if (++interrupts >= 2) _exit(128 + signal_number);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // A closed pipe or a full disk is an error to report, not a reason to die.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool is_interrupted() { return interrupts > 0; }

void set_up_run(const ConfigNode& effective) {
  set_up_talk(effective);
  for (const std::string& name : kernels::machine().unknown_masks) {
    log_warning("STROBE_MACHINE: '{}' masks nothing; known: no-avx2, no-avx512, no-bf16, no-gpu", name);
  }
  set_threads(effective);
}

void set_threads(const ConfigNode& effective) {
  at::set_num_threads(static_cast<int>(effective.get_integer("threads", kernels::machine().cores)));
}

pipelines::Device device_of(const ConfigNode& effective) {
  return pipelines::resolve_device(effective.get_string("device", "auto"), effective.get_string("dtype", "auto"));
}

std::filesystem::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base = cache && *cache ? std::filesystem::path(cache)
                                     : home && *home ? std::filesystem::path(home) / ".cache"
                                                     : std::filesystem::temp_directory_path();
  return base / "strobe";
}

std::filesystem::path default_model_path() { return cache_folder() / "models" / "tiny-random-v1"; }

std::filesystem::path default_model_folder() {
  const std::filesystem::path folder = default_model_path();
  std::error_code error;
  if (std::filesystem::exists(folder / "model_index.json", error)) return folder;
  make_folders(folder.parent_path());
  log_info("making the default model, a small random one, in {}", folder.string());
  const auto files = models::family_of_known(kDefaultArchitecture)->known_files(kDefaultArchitecture, kRandomNote);
  try {
    models::write_random_checkpoint(folder, files, {.seed = 1});
  } catch (const Error&) {
    // Another process may have made it in the meantime: its files are the same.
    if (!std::filesystem::exists(folder / "model_index.json", error)) throw;
  }
  return folder;
}

bool is_default_model(const std::string& model) { return model.empty() || model == "tiny-random"; }

std::unique_ptr<models::ModelFolder> open_model(const std::string& model) {
  const bool is_default = is_default_model(model);
  std::error_code error;
  if (!is_default && !std::filesystem::exists(model, error)) {
    const std::vector<std::string> known = models::known_model_names();
    if (std::find(known.begin(), known.end(), model) != known.end()) {
      throw ConfigError(fmt::format(
          "--model {}: an architecture that is known without weights (plan, models make-random); give a folder",
          model));
    }
  }
  auto folder = models::open_model_folder(is_default ? default_model_folder() : std::filesystem::path(model));
  if (!folder->info().note.empty()) log_warning("model {}: {}", folder->info().name, folder->info().note);
  return folder;
}

pipelines::Pipeline open_pipeline(const ConfigNode& effective) {
  const pipelines::Device device = device_of(effective);
  return {open_model(effective.get_string("model", "")),
          {.device = device, .embedding_cache = {}, .embedding_key = {}}};
}

ConfigNode build_facts() {
  const auto text = [](const std::string& value) { return ConfigNode::string(value); };
  return ConfigNode::map({{"version", text(kVersion)},
                          {"commit", text(kCommit)},
                          {"compiler", text(kCompiler)},
                          {"build_type", text(kBuildType)},
                          {"libtorch", text(kTorchVersion)},
                          {"cuda", ConfigNode::boolean(kHasCuda)},
                          {"ffmpeg", text(video::ffmpeg_version())}});
}

ConfigNode machine_facts() {
  const kernels::Machine& m = kernels::machine();
  const auto yes = [](bool value) { return ConfigNode::boolean(value); };
  ConfigNode::List masked;
  for (const std::string& name : m.masked) masked.push_back(ConfigNode::string(name));
  return ConfigNode::map({{"cpu", ConfigNode::string(m.cpu_name)},
                          {"processors", ConfigNode::integer(m.cores)},
                          {"avx2", yes(m.has_avx2)},
                          {"avx512", yes(m.has_avx512)},
                          {"avx512_bf16", yes(m.has_avx512_bf16)},
                          {"masked", ConfigNode::list(std::move(masked))},
                          {"libtorch_kernels", ConfigNode::string(at::get_cpu_capability())},
                          {"memory_bytes", ConfigNode::integer(pipelines::machine_memory().bytes)}});
}

std::string version_text() {
  return fmt::format("strobe {} ({})\nLibTorch {}\nCUDA {}\nFFmpeg {}\ncompiler {}, {}\n", kVersion, kCommit,
                     kTorchVersion, kHasCuda ? "yes" : "not in this build", video::ffmpeg_version(), kCompiler,
                     kBuildType);
}

}  // namespace strobe::tools
