// The declared keys of a command: one table checks files, fills defaults, answers --set, makes flags and the help.
//
// Contract  Keys are flat names, dotted where files nest them. A checked map is canonical: flat, each value of its key's
//           type, a single value of a list key made a list of one, a size split into its axes. Null means "not given".
//           Every value keeps the place it came from as its origin: "run.yaml:3:5", "--set seed=3", "--seed", "default".
// Errors    ConfigError with the place, the key, what was expected and the nearest name.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config_node.h"

namespace strobe::config {

enum class KeyType {
  kText,
  kPath,
  kInteger,
  kNumber,
  kBoolean,
  kSize,  // "WIDTHxHEIGHT" or [frames, height, width]; becomes the three keys of `axes`
};

struct KeySpec {
  std::string name;  // num_frames
  KeyType type = KeyType::kText;
  std::string sentence;  // what it is, for help and `config explain`
  std::string group;     // of the flag in the help
  std::string flags;     // "-s,--seed", as CLI11 takes them; empty: no flag
  std::string unit;
  std::optional<double> minimum = {}, maximum = {};
  bool is_above_minimum = false;  // the minimum itself is out
  std::vector<std::string> choices = {};
  std::string default_text = {};        // as in YAML; empty: none
  std::string default_note = {};        // what holds when it is not given: "the model's"
  std::vector<std::string> parts = {};  // names of the parts that may set it: model, attention, sampling
  std::vector<std::string> axes = {};   // of a size: keys of frames, height, width
  bool is_list = false;                 // any number of values; a single one counts as a list of one
  bool is_per_job = false;              // may differ from prompt to prompt
  // Text "NAME:key=value,..." that a file may also write as a map: {method: NAME, key: value, options: {...}}.
  bool takes_method_map = false;
};

class KeyTable {
 public:
  explicit KeyTable(std::vector<KeySpec> keys);

  const std::vector<KeySpec>& keys() const { return keys_; }
  // Null if unknown.
  const KeySpec* find(std::string_view name) const;
  // By a name that a person may type: hyphens for underscores, any of the flags' long or short names.
  const KeySpec* find_alias(std::string_view name) const;
  std::vector<std::string> names() const;
  // "unknown key 'x'; did you mean 'y'?", with all names where none is near.
  std::string unknown_key_message(std::string_view name) const;

  // The map in canonical form.
  ConfigNode checked(const ConfigNode& map) const;
  // One value, of the key's type.
  ConfigNode checked_value(const KeySpec& key, const ConfigNode& value) const;

  // What stands on a command line or in a cell: text stays as it is, other types are read as YAML scalars.
  ConfigNode parse_value(const KeySpec& key, const std::string& text, const std::string& origin) const;
  // "key=value" items to a canonical map; a quoted value is text, null gives the default back.
  ConfigNode parse_sets(const std::vector<std::string>& items) const;

  // In the table's order, without nulls, absent keys set to their defaults with origin "default".
  ConfigNode with_defaults(const ConfigNode& map) const;

 private:
  void add_checked(const ConfigNode& map, const std::string& prefix, ConfigNode& out) const;
  void add_size(const KeySpec& key, const ConfigNode& value, ConfigNode& out) const;
  std::vector<KeySpec> keys_;
};

// "an integer from 1 to 1000".
std::string describe_type(const KeySpec& key);

// All of its flags: "-s", "--seed".
std::vector<std::string> flag_names(const KeySpec& key);

// First long flag, "--seed"; empty if the key has none.
std::string long_flag(const KeySpec& key);

// Puts the values of `upper` over those of `lower`.
void overlay(ConfigNode& lower, const ConfigNode& upper);

}  // namespace strobe::config
