#include "tools/command_line.h"

#include <unistd.h>

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "config/compose.h"
#include "core/error.h"
#include "core/log.h"
#include "core/nearest.h"
#include "pipelines/generate_keys.h"

namespace strobe::tools {
namespace {

constexpr int kUsage = static_cast<int>(ExitCode::kUsage);

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
  std::fprintf(stderr, "see: strobe %s--help\n", command.empty() ? "" : (command + " ").c_str());
  return kUsage;
}

std::string describe(const config::KeySpec& key) {
  std::string text = key.sentence;
  if (!key.choices.empty()) text += fmt::format(": {}", fmt::join(key.choices, ", "));
  if (!key.default_note.empty()) {
    if (key.default_note != "must be given") text += fmt::format(" (default: {})", key.default_note);
  } else if (!key.default_text.empty() && key.type != config::KeyType::kBoolean) {
    text += fmt::format(" (default: {})", key.default_text);
  }
  return text;
}

const char* type_name(const config::KeySpec& key) {
  switch (key.type) {
    case config::KeyType::kInteger:
      return "N";
    case config::KeyType::kNumber:
      return "X";
    case config::KeyType::kPath:
      return "PATH";
    case config::KeyType::kSize:
      return "WxH";
    default:
      return key.choices.empty() ? "TEXT" : "NAME";
  }
}

// A command while it is parsed: its app and the options by key.
struct Face {
  const CommandSpec* spec = nullptr;
  CLI::App* app = nullptr;
  std::vector<std::pair<const config::KeySpec*, CLI::Option*>> options;
  std::vector<std::pair<const Positional*, CLI::Option*>> positionals;
  CLI::Option* config = nullptr;
  CLI::Option* sets = nullptr;
};

bool accept(const CLI::results_t&) { return true; }

void add_options(Face& face) {
  CLI::App& app = *face.app;
  for (const Positional& positional : face.spec->positionals) {
    CLI::Option* option = app.add_option(positional.name, CLI::callback_t(accept), positional.sentence);
    if (positional.is_list) {
      option->expected(1, -1)->allow_extra_args();  // any number: -1 alone would mean one
    } else {
      option->expected(1);
    }
    face.positionals.emplace_back(&positional, option->type_name(""));
  }
  for (const config::KeySpec& key : face.spec->keys.keys()) {
    if (key.flags.empty()) continue;
    CLI::Option* option = nullptr;
    const std::string sentence = describe(key);
    if (key.type == config::KeyType::kBoolean) {
      option = app.add_flag(key.flags, sentence);
    } else {
      option = app.add_option(key.flags, CLI::callback_t(accept), sentence)->type_name(type_name(key));
      option->expected(1);
    }
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->group(key.group);
    face.options.emplace_back(&key, option);
  }
  if (!face.spec->has_config) return;
  face.config = app.add_option("--config", CLI::callback_t(accept), "run file (YAML), below the flags")
                    ->type_name("FILE")
                    ->expected(1)
                    ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
                    ->group("Configuration");
  face.sets =
      app.add_option("--set", CLI::callback_t(accept), "KEY=VALUE over the file; `config explain` lists the keys")
          ->type_name("KEY=VALUE")
          ->expected(1)
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
          ->group("Configuration");
}

ConfigNode flag_values(const Face& face) {
  ConfigNode map = ConfigNode::map();
  for (const auto& [key, option] : face.options) {
    if (option->empty()) continue;
    const std::string flag = config::long_flag(*key);
    if (key->is_list) {
      ConfigNode::List list;
      for (const std::string& text : option->results()) {
        ConfigNode item = ConfigNode::string(text);
        item.set_place(flag, key->name);
        list.push_back(std::move(item));
      }
      ConfigNode node = ConfigNode::list(std::move(list));
      node.set_place(flag, key->name);
      map.set(key->name, std::move(node));
      continue;
    }
    if (option->results().size() > 1) throw ConfigError(fmt::format("{}: given twice", flag));
    map.set(key->name, face.spec->keys.parse_value(*key, option->results().front(), flag));
  }
  return face.spec->keys.checked(map);
}

void require_given(const Face& face) {
  for (const auto& [positional, option] : face.positionals) {
    if (positional->is_required && option->empty()) throw ConfigError(fmt::format("{} is required", positional->name));
  }
  for (const auto& [key, option] : face.options) {
    // A run file may hold it too: those commands look at the effective map themselves.
    if (key->default_note == "must be given" && !face.spec->has_config && option->empty()) {
      throw ConfigError(fmt::format("{} is required: {}", config::long_flag(*key), key->sentence));
    }
  }
}

Invocation read(const Face& face) {
  Invocation out{.command = face.spec};
  for (const auto& [positional, option] : face.positionals) out.positionals[positional->name] = option->results();
  if (face.config && !face.config->empty()) {
    if (face.config->results().size() > 1) throw ConfigError("--config: given twice; a file may `extends:` another");
    out.config = face.config->results().front();
  }
  if (face.sets) out.sets = face.sets->results();
  out.flags = flag_values(face);
  require_given(face);
  return out;
}

int refuse_extras(const Face& face) {
  const std::string& command = face.spec ? face.spec->name : std::string();
  const std::string extra = face.app->remaining().front();
  if (!extra.starts_with("-") || extra == "-") {
    return report_usage(fmt::format("unexpected argument '{}'", extra), command);
  }
  const std::string name = extra.substr(0, extra.find('='));
  const std::string best = nearest_name(name, long_flags(*face.app));
  return report_usage(
      fmt::format("unknown flag {}{}", name, best.empty() ? "" : fmt::format("; did you mean {}?", best)), command);
}

class Parser {
 public:
  Parser() : app_("Strobe: fast video diffusion transformers, with the evidence.", "strobe") {
    app_.add_flag("--version", wants_version_, "versions of strobe, LibTorch, CUDA and FFmpeg");
    app_.set_help_flag("-h,--help", "this text");
    app_.require_subcommand(0, 1);
    app_.allow_extras();
    app_.footer("Exit codes: 0 done, 1 the run failed, 2 usage, 3 unsupported here, 130 interrupted.");
    faces_.reserve(commands().size());
    for (const CommandSpec& spec : commands()) add(spec);
  }

  Parsed run(int argc, char** argv) {
    try {
      std::vector<std::string> arguments = normalised_arguments(argc, argv);
      std::reverse(arguments.begin(), arguments.end());  // the order that CLI11 takes a vector in
      app_.parse(arguments);
    } catch (const CLI::Success& request) {
      return {.invocation = {}, .exit_code = app_.exit(request)};
    } catch (const CLI::ParseError& error) {
      const Face* face = chosen();
      if (face && !face->app->remaining().empty()) return ended(refuse_extras(*face));
      return ended(report_usage(error.what(), face ? face->spec->name : ""));
    }
    if (wants_version_) return {.invocation = {}, .wants_version = true};
    const Face* face = chosen();
    if (!face) return ended(refuse_command());
    if (!face->app->remaining().empty()) return ended(refuse_extras(*face));
    if (face->spec->is_group) {
      std::fputs(face->app->help().c_str(), stderr);
      return ended(kUsage);
    }
    try {
      return {.invocation = read(*face)};
    } catch (const ConfigError& error) {
      return ended(report_usage(error.what(), face->spec->name));
    }
  }

 private:
  void add(const CommandSpec& spec) {
    const size_t space = spec.name.find(' ');
    CLI::App* parent = &app_;
    if (space != std::string::npos) parent = app_.get_subcommand(spec.name.substr(0, space));
    CLI::App* sub = parent->add_subcommand(spec.name.substr(space == std::string::npos ? 0 : space + 1), spec.summary);
    sub->allow_extras();
    sub->set_help_flag("-h,--help", "this text");
    sub->get_formatter()->column_width(34);
    if (!spec.examples.empty()) sub->footer("Examples:\n" + spec.examples);
    faces_.push_back({.spec = &spec, .app = sub, .options = {}, .positionals = {}});
    add_options(faces_.back());
  }

  // The innermost command that was named.
  const Face* chosen() const {
    const Face* found = nullptr;
    for (const Face& face : faces_) {
      if (face.app->parsed() && (!found || face.spec->name.size() > found->spec->name.size())) found = &face;
    }
    return found;
  }

  int refuse_command() {
    if (app_.remaining().empty()) {
      std::fputs(app_.help().c_str(), stderr);
      return kUsage;
    }
    const std::string word = app_.remaining().front();
    if (word.starts_with("-")) return refuse_extras({.spec = nullptr, .app = &app_, .options = {}, .positionals = {}});
    std::vector<std::string> names;
    for (const CommandSpec& spec : commands()) {
      if (spec.name.find(' ') == std::string::npos) names.push_back(spec.name);
    }
    return report_usage(unknown_name_message("command", word, names), "");
  }

  static Parsed ended(int exit_code) { return {.invocation = {}, .exit_code = exit_code}; }

  CLI::App app_;
  std::vector<Face> faces_;
  bool wants_version_ = false;
};

}  // namespace

ConfigNode Invocation::effective() const {
  const config::KeyTable& own = command->keys;
  if (!config.empty()) (void)own.parse_sets(sets);  // typed for this command: only what it uses
  // A run file is written for generate and serves the others too: what they do not use is checked and left out.
  std::vector<config::KeySpec> keys = own.keys();
  for (const config::KeySpec& key : pipelines::generate_keys().keys()) {
    if (!config.empty() && !own.find(key.name)) keys.push_back(key);
  }
  const ConfigNode all =
      config::compose(config::KeyTable(keys), {.file = config, .sets = sets, .flags = flags, .folders = {"configs"}});
  ConfigNode used = ConfigNode::map();
  for (const auto& [name, value] : all.as_map()) {
    if (own.find(name)) used.set(name, value);
  }
  return used;
}

std::string Invocation::positional(const std::string& name) const {
  const auto found = positionals.find(name);
  return found == positionals.end() || found->second.empty() ? "" : found->second.front();
}

Parsed parse_command_line(int argc, char** argv) { return Parser().run(argc, argv); }

int run_program(int (*run)(int argc, char** argv), int argc, char** argv) {
  try {
    const int code = run(argc, argv);
    if (std::fflush(stdout) != 0) throw IoError(fmt::format("stdout: {}", std::strerror(errno)));
    return code;
  } catch (const Error& error) {
    log_error("{}", error.what());
    return static_cast<int>(error.exit_code());
  } catch (const std::bad_alloc&) {
    log_error("out of memory; a smaller size, fewer frames or --vae-tiling needs less");
  } catch (const std::exception& error) {
    // LibTorch's messages carry a backtrace behind the first line.
    const std::string text = error.what();
    log_error("{}", text.substr(0, text.find('\n')));
  }
  return static_cast<int>(ExitCode::kFailed);
}

void set_up_talk(const ConfigNode& effective) {
  const bool is_quiet = effective.get_bool("quiet", false), is_verbose = effective.get_bool("verbose", false);
  if (is_quiet && is_verbose) throw ConfigError("--quiet and --verbose contradict each other");
  set_log_level(is_quiet ? LogLevel::kWarning : is_verbose ? LogLevel::kDebug : LogLevel::kInfo);
}

}  // namespace strobe::tools
