// JSON whose entries say where they stand: the parser tells no positions, so the text is walked a second time.
//
// Errors   ConfigError with line and column for bad syntax.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/config_node.h"

namespace strobe::pipelines {

// A list, or a map with lists in it: places are those of the entries and, where an entry is a map, of its values.
ConfigNode parse_placed_json(std::string_view text, const std::string& file);

// Line `number` of a file, from 1. Places are those of the values.
ConfigNode parse_json_line(std::string_view line, const std::string& file, size_t number);

}  // namespace strobe::pipelines
