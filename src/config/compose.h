// One effective map of settings out of files, --set and flags, each value with its origin.
//
// Files     `schema: 1`, optional `extends:` (one parent, relative to the file), and keys of the table. A run file names
//           its parts: `model:`, `attention:` and `sampling:` are each the name of a part (<configs>/<folder>/NAME.yaml),
//           a map given inline, or, where the part's name is also a key of the table, that key's own value.
// Order     default < part < run file (a parent below what extends it) < --set < flag. Among parts: model < attention <
//           sampling. A key at null is back at its default. --set and a flag for one key are refused.
// Folders   Parts are looked for in the nearest folder called `configs` above the file, then in the folders given.
// Errors    ConfigError with file, line and column.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/key_table.h"

namespace strobe::config {

inline constexpr int64_t kSchema = 1;

// A part: what a run file calls it, and its folder under `configs`.
struct PartKind {
  std::string name;    // model
  std::string folder;  // models
};
const std::vector<PartKind>& part_kinds();

struct Sources {
  std::filesystem::path file = {};                  // empty: none
  std::vector<std::string> sets = {};               // "key=value"
  ConfigNode flags = ConfigNode::map();             // as typed; origins "--seed"
  std::vector<std::filesystem::path> folders = {};  // more `configs` folders
};

// In the table's order, defaults filled in; keys without a default that nobody gave are absent.
ConfigNode compose(const KeyTable& table, const Sources& sources);

}  // namespace strobe::config
