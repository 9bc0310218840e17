// The settings of one prompt while they are read: each is looked at once, then all are put into canonical form.
//
// Errors   ConfigError "place: ..." for a key that holds for the whole run, one given twice, a value that its key does
//          not take, and what is no prompt.
#pragma once

#include <string>

#include "config/key_table.h"
#include "core/config_node.h"
#include "pipelines/prompt_file.h"

namespace strobe::pipelines {

// ConfigError unless the key may differ from prompt to prompt; `shown` is what the user wrote: "--model", "model".
void check_per_job(const config::KeySpec& key, const std::string& shown, const std::string& place);

// The value with `place` as the origin of everything in it.
ConfigNode placed(const ConfigNode& value, const std::string& place, const std::string& path);

class PromptOverrides {
 public:
  explicit PromptOverrides(const config::KeyTable& keys) : keys_(keys) {}

  // The value's origin is the place for messages. Null is dropped.
  void add(const config::KeySpec& key, ConfigNode value, const std::string& shown);
  // Sets `text` and `overrides` of the line.
  void finish(PromptLine& line) const;

 private:
  const config::KeyTable& keys_;
  ConfigNode map_ = ConfigNode::map();
};

}  // namespace strobe::pipelines
