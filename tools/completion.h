// Completion scripts, made of the same tables as the parser.
#pragma once

#include <string>

namespace strobe::tools {

// `shell` is "bash" or "zsh"; ConfigError for another. A script to source (bash) or to put into fpath as _strobe (zsh).
std::string completion_script(const std::string& shell);

}  // namespace strobe::tools
