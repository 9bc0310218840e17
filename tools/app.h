// What the engine's commands share: the program's face to the terminal.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "pipelines/pipeline.h"
#include "tools/command_line.h"

namespace strobe::tools {

int run_generate(const Invocation& invocation);
int run_decode(const Invocation& invocation);
int run_encode(const Invocation& invocation);
int run_replay(const Invocation& invocation);
int run_plan(const Invocation& invocation);
int run_models(const Invocation& invocation);
int run_make_random(const Invocation& invocation);
int run_sprites_clips(const Invocation& invocation);
int run_sprites_check(const Invocation& invocation);
int run_train(const Invocation& invocation);
int run_doctor(const Invocation& invocation);
int run_bench_attention(const Invocation& invocation);
int run_pattern_run(const Invocation& invocation);
int run_pattern_show(const Invocation& invocation);
int run_pattern_list(const Invocation& invocation);
int run_completion(const Invocation& invocation);

// Log level, threads. Call first in a command.
void set_up_run(const ConfigNode& effective);
// As many as `threads` says, all processors without; for settings that come after set_up_run.
void set_threads(const ConfigNode& effective);
pipelines::Device device_of(const ConfigNode& effective);

// Whether --model, as typed, means the default one.
bool is_default_model(const std::string& model);
// Opens the model that --model names; the default one is made on first use. Says what a model says of itself.
std::unique_ptr<models::ModelFolder> open_model(const std::string& model);
pipelines::Pipeline open_pipeline(const ConfigNode& effective);

// The architecture of the default model, and what a random checkpoint says of itself.
inline constexpr const char* kDefaultArchitecture = "wan_tiny";
inline constexpr const char* kRandomNote = "random weights: clips show texture, not the prompt";

// Folder of the small random model that is the default; makes it if it is not there.
std::filesystem::path default_model_folder();
// Where it would be, without making it.
std::filesystem::path default_model_path();
// The user's folder for what can be made again.
std::filesystem::path cache_folder();

std::string version_text();
// For records: version, commit, compiler and libraries; and this machine.
ConfigNode build_facts();
ConfigNode machine_facts();

// SIGINT and SIGTERM: the first asks the run to stop after the current step, the second ends at once.
void install_signal_handlers();
bool is_interrupted();

}  // namespace strobe::tools
