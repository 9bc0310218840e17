// What a key table says about itself: text for people, a JSON schema for editors, an effective map as YAML.
#pragma once

#include <string>

#include "config/key_table.h"

namespace strobe::config {

// One key, or all of them by group. ConfigError with the nearest name for an unknown one.
std::string explain_key(const KeyTable& table, const std::string& name);
std::string explain_all(const KeyTable& table);

// Draft 2020-12, of a run file: the table's keys beside `schema`, `extends` and the parts.
ConfigNode json_schema(const KeyTable& table, const std::string& title);

// The effective map as a file that can be loaded again; a comment behind each value says where it came from, and keys
// that nobody gave stand as comments.
std::string show(const KeyTable& table, const ConfigNode& effective);

// {key: {value, origin}} for every value of the map.
ConfigNode with_origins(const ConfigNode& effective);

}  // namespace strobe::config
