// YAML text to ConfigNode, and a ConfigNode as one line of YAML.
//
// Contract  Every node carries "file:line:column" and its key path. Plain scalars are typed by YAML 1.2's core schema
//           (null ~ true 12 0x1f .5 1e-6 .inf); quoted ones stay strings. Keys are strings as written.
// Refused   Duplicate keys, anchors, aliases, merge keys, tags, more than one document, maps or lists as keys, nesting
//           deeper than 64, text that is not UTF-8 or holds control characters.
// Errors    ConfigError "file:line:column: ..."; none of the parser's own exceptions gets out.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/config_node.h"

namespace strobe::config {

// An empty document is null.
ConfigNode parse_yaml(std::string_view text, const std::string& origin);

// A file of at most 1 MiB.
ConfigNode load_yaml(const std::filesystem::path& path);

// The plain (unquoted) scalar by the core schema; ConfigError "place: ..." for a number that no type holds.
ConfigNode parse_plain_scalar(const std::string& text, const std::string& place);

// Flow style, reads back as the same tree.
std::string to_yaml(const ConfigNode& node);

}  // namespace strobe::config
