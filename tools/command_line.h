// From the words of a command line to one invocation, or to the text and exit code that end the program.
//
// Contract  Free of LibTorch. Hyphens and underscores are interchangeable in flag names. Values are checked by the
//           command's key table; what was given twice, is unknown or is missing is refused with one message, the
//           nearest name and a pointer to the help.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/commands.h"

namespace strobe::tools {

struct Invocation {
  const CommandSpec* command = nullptr;
  ConfigNode flags = ConfigNode::map();  // canonical map of what was typed
  std::filesystem::path config;          // --config
  std::vector<std::string> sets;         // --set
  std::map<std::string, std::vector<std::string>> positionals;

  // The flags over --set over the file over the defaults; of a run file, the keys that the command uses.
  ConfigNode effective() const;
  // The only value of a positional; empty if it was not given.
  std::string positional(const std::string& name) const;
};

struct Parsed {
  std::optional<Invocation> invocation;  // empty: the program ends with exit_code, all is said
  int exit_code = 0;
  bool wants_version = false;
};

Parsed parse_command_line(int argc, char** argv);

// The frame of a program: runs it, flushes stdout, turns every error into one message and its exit code.
int run_program(int (*run)(int argc, char** argv), int argc, char** argv);

// Sets the level of the log from --quiet and --verbose, and colours where stderr is a terminal.
void set_up_talk(const ConfigNode& effective);

}  // namespace strobe::tools
