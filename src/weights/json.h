// JSON text to and from ConfigNode.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/config_node.h"

namespace strobe::weights {

// Parses one JSON document; nodes carry `origin` (with line and column where the parser tells) and their key path.
// ConfigError on bad syntax, duplicate keys, or nesting deeper than 64.
ConfigNode parse_json(std::string_view text, const std::string& origin);

// Reads and parses a file. IoError if it cannot be read or is larger than 64 MiB (tokenizers are the largest we read).
ConfigNode load_json(const std::filesystem::path& path);

// The node as JSON text; `indent` < 0 gives one line. ConfigError for infinity and NaN, which JSON cannot hold.
std::string to_json(const ConfigNode& node, int indent = 2);

}  // namespace strobe::weights
