// What every command shares: the program's face to the terminal.
#pragma once

#include <CLI/CLI.hpp>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "pipelines/pipeline.h"

namespace strobe::tools {

struct CommonOptions {
  std::string model;  // empty: the default model
  std::string device = "auto";
  std::string dtype = "auto";
  int threads = 0;  // 0: all processors
  bool is_quiet = false;
  bool is_verbose = false;
};

// A command: its options are added to a subcommand; `run` does the work and returns the exit code.
struct Command {
  const char* name;
  const char* summary;
  std::function<std::function<int()>(CLI::App& app)> add;
};

const std::vector<Command>& commands();

std::function<int()> add_generate(CLI::App& app);
std::function<int()> add_decode(CLI::App& app);
std::function<int()> add_encode(CLI::App& app);
std::function<int()> add_models(CLI::App& app);
std::function<int()> add_plan(CLI::App& app);
std::function<int()> add_doctor(CLI::App& app);

void add_common_options(CLI::App& app, CommonOptions& options);
// Size, frames and strictness of the clip; `size` takes WIDTHxHEIGHT and goes through parse_size.
void add_size_options(CLI::App& app, pipelines::Request& request, std::string& size);
void parse_size(const std::string& text, pipelines::Request& request);
// Steps, guidance, schedule and attention method.
void add_sampling_options(CLI::App& app, pipelines::Request& request);
void add_output_options(CLI::App& app, pipelines::Request& request);
// Log level, threads. Call first in `run`.
void apply_common_options(const CommonOptions& options);

// Opens the model that --model names; the default one is made on first use.
pipelines::Pipeline open_pipeline(const CommonOptions& options);

// The architecture of the default model, and what a random checkpoint says of itself.
inline constexpr const char* kDefaultArchitecture = "wan_tiny";
inline constexpr const char* kRandomNote = "random weights: clips show texture, not the prompt";

// Folder of the small random model that is the default; makes it if it is not there.
std::filesystem::path default_model_folder();
// Where it would be, without making it.
std::filesystem::path default_model_path();

std::string version_text();

// SIGINT and SIGTERM: the first asks the run to stop after the current step, the second ends at once.
void install_signal_handlers();
bool is_interrupted();

// Progress on stderr: one rewritten line on a terminal, a plain line per tenth elsewhere, nothing when quiet.
class ProgressLine {
 public:
  explicit ProgressLine(bool is_quiet);
  ~ProgressLine();
  pipelines::Progress callbacks();
  void show_bytes(const std::string& what, uint64_t done, uint64_t total);
  void finish();

 private:
  void show(const std::string& text, double fraction);
  bool is_quiet_;
  bool is_terminal_;
  bool has_open_line_ = false;
  int last_tenth_ = -1;
  double step_seconds_ = 0;  // sum of the steps so far
  std::string stage_;
};

}  // namespace strobe::tools
