// What every command takes: declared once, read by the parser, the help, the completion and the documentation's test.
//
// Contract  Free of LibTorch: `strobe` itself answers --help, mistakes and `config` from here without loading it, and
//           leaves the rest to `strobe-engine`, which parses the same words with the same tables.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/key_table.h"

namespace strobe::tools {

struct Positional {
  std::string name;  // "LATENTS"
  std::string sentence;
  bool is_required = true;
  bool is_list = false;
};

struct CommandSpec {
  std::string name;     // "generate"; "models make-random" is a command within another
  std::string summary;  // one line of the list of commands
  std::vector<Positional> positionals = {};
  config::KeyTable keys;
  bool has_config = false;    // takes --config and --set
  std::string examples = {};  // lines behind the options of the help
  bool is_group = false;      // only holds other commands
};

// In the order of the help; a group before what it holds.
const std::vector<CommandSpec>& commands();
const CommandSpec* find_command(std::string_view name);

}  // namespace strobe::tools
