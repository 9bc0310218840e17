#include "tools/cmd_config.h"

#include <cstdio>

#include "config/explain.h"
#include "core/error.h"
#include "pipelines/generate_keys.h"
#include "weights/json.h"

namespace strobe::tools {
namespace {

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

}  // namespace

int run_config_show(const Invocation& invocation) {
  Invocation run = invocation;
  if (const std::string file = invocation.positional("FILE"); !file.empty()) {
    if (!run.config.empty()) throw ConfigError("FILE and --config: give one of them");
    run.config = file;
  }
  const ConfigNode effective = run.effective();
  const bool is_json = effective.get_bool("json", false);
  ConfigNode settings = ConfigNode::map();
  for (const auto& [name, value] : effective.as_map()) {
    if (name != "json") settings.set(name, value);
  }
  print(is_json ? weights::to_json(config::with_origins(settings)) + "\n"
                : config::show(pipelines::generate_keys(), settings));
  return 0;
}

int run_config_explain(const Invocation& invocation) {
  const std::string key = invocation.positional("KEY");
  print(key.empty() ? config::explain_all(pipelines::generate_keys())
                    : config::explain_key(pipelines::generate_keys(), key));
  return 0;
}

int run_config_schema(const Invocation&) {
  print(weights::to_json(config::json_schema(pipelines::generate_keys(), "strobe generate")) + "\n");
  return 0;
}

}  // namespace strobe::tools
