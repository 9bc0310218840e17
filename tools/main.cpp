// strobe: parses the command line, runs one command, turns every error into one message and its exit code.
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "core/error.h"
#include "core/log.h"
#include "core/nearest.h"
#include "tools/app.h"

namespace strobe::tools {

const std::vector<Command>& commands() {
  static const std::vector<Command> list = {
      {"generate", "a prompt to a video", add_generate},
      {"decode", "a latents file to a video", add_decode},
      {"encode", "a video to a latents file", add_encode},
      {"plan", "what a run costs: tokens, FLOPs, memory, time; reads no weights", add_plan},
      {"models", "bundled, known and found models; random checkpoints", add_models},
      {"doctor", "this machine: CPU, GPUs, libraries, codecs, kernels", add_doctor},
  };
  return list;
}

namespace {

constexpr int kUsage = static_cast<int>(ExitCode::kUsage);

// Hyphens and underscores are interchangeable in flag names: --num_frames is --num-frames.
std::vector<std::string> normalised_arguments(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::string& argument : arguments) {
    if (!argument.starts_with("--") || argument.size() < 3) continue;
    const size_t end = std::min(argument.find('='), argument.size());
    if (argument.find_first_of(" \t\n") < end) continue;  // a value that looks like a flag, not a flag
    std::replace(argument.begin() + 2, argument.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  }
  return arguments;
}

std::vector<std::string> long_flags(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

int report_usage(const std::string& message, const std::string& command) {
  log_error("{}", message);
  const bool is_sub = !command.empty() && command != "strobe";
  std::fprintf(stderr, "see: strobe %s--help\n", is_sub ? (command + " ").c_str() : "");
  return kUsage;
}

// "models make-random" for a command within a command.
std::string full_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  const bool is_nested = parent && parent->get_parent();
  return is_nested ? parent->get_name() + " " + command.get_name() : command.get_name();
}

int refuse_extras(const CLI::App& command) {
  const std::string extra = command.remaining().front();
  if (!extra.starts_with("-")) return report_usage(fmt::format("unexpected argument '{}'", extra), full_name(command));
  const std::string name = extra.substr(0, extra.find('='));
  const std::string best = nearest_name(name, long_flags(command));
  return report_usage(
      fmt::format("unknown flag {}{}", name, best.empty() ? "" : fmt::format("; did you mean {}?", best)),
      full_name(command));
}

int run(int argc, char** argv) {
  CLI::App app("Strobe: fast video diffusion transformers, with the evidence.", "strobe");
  bool wants_version = false;
  app.add_flag("--version", wants_version, "versions of strobe, LibTorch, CUDA and FFmpeg");
  app.require_subcommand(0, 1);
  app.allow_extras();
  app.footer("Exit codes: 0 done, 1 the run failed, 2 usage, 3 unsupported here, 130 interrupted.");
  std::vector<std::pair<CLI::App*, std::function<int()>>> runners;
  std::vector<std::string> names;
  for (const Command& command : commands()) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    sub->allow_extras();
    sub->set_help_flag("-h,--help", "this text");
    runners.emplace_back(sub, command.add(*sub));
    names.emplace_back(command.name);
  }
  try {
    std::vector<std::string> arguments = normalised_arguments(argc, argv);
    std::reverse(arguments.begin(), arguments.end());  // the order that CLI11 takes a vector in
    app.parse(arguments);
  } catch (const CLI::Success& request) {
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    const auto used = app.get_subcommands();
    for (const CLI::App* sub : used) {
      if (!sub->remaining().empty()) return refuse_extras(*sub);
    }
    const CLI::App* command = used.empty() ? nullptr : used.front();
    if (command && !command->get_subcommands().empty()) command = command->get_subcommands().front();
    return report_usage(error.what(), command ? full_name(*command) : "");
  }
  if (wants_version) {
    std::fputs(version_text().c_str(), stdout);
    return 0;
  }
  for (auto& [sub, runner] : runners) {
    if (!sub->parsed()) continue;
    for (const CLI::App* nested : sub->get_subcommands()) {
      if (!nested->remaining().empty()) return refuse_extras(*nested);
    }
    if (!sub->remaining().empty()) return refuse_extras(*sub);
    return runner();
  }
  if (!app.remaining().empty()) {
    const std::string word = app.remaining().front();
    if (word.starts_with("-")) return refuse_extras(app);
    return report_usage(unknown_name_message("command", word, names), "");
  }
  std::fputs(app.help().c_str(), stderr);
  return kUsage;
}

// Video models make and drop tensors of tens of megabytes. glibc would learn to keep them on its heap, which then grows by
// fragments (a sixth of the VAE's peak, more with every frame); mapped blocks go back to the system at once, and huge
// pages make up for the page faults.
void set_up_memory() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);  // read by LibTorch before its first large tensor
}

}  // namespace
}  // namespace strobe::tools

int main(int argc, char** argv) {
  strobe::tools::set_up_memory();
  strobe::tools::install_signal_handlers();
  try {
    return strobe::tools::run(argc, argv);
  } catch (const strobe::Error& error) {
    strobe::log_error("{}", error.what());
    return static_cast<int>(error.exit_code());
  } catch (const std::bad_alloc&) {
    strobe::log_error("out of memory; a smaller size, fewer frames or --vae-tiling needs less");
  } catch (const std::exception& error) {
    // LibTorch's messages carry a backtrace behind the first line.
    const std::string text = error.what();
    strobe::log_error("{}", text.substr(0, text.find('\n')));
  }
  return static_cast<int>(strobe::ExitCode::kFailed);
}
