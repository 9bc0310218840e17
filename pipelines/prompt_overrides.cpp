#include "pipelines/prompt_overrides.h"

#include <utility>

#include "core/error.h"
#include "core/text_file.h"

namespace strobe::pipelines {
namespace {

// Escapes of JSON and YAML bring in what check_text has refused in the file itself.
void check_characters(const ConfigNode& value) {
  if (value.is_string()) {
    const size_t bad = find_control_character(value.as_string());
    if (bad == std::string::npos) return;
    value.fail(fmt::format("control character 0x{:02x}", static_cast<unsigned char>(value.as_string()[bad])));
  }
  if (value.is_list()) {
    for (const ConfigNode& item : value.as_list()) check_characters(item);
  }
}

}  // namespace

void check_per_job(const config::KeySpec& key, const std::string& shown, const std::string& place) {
  if (key.is_per_job) return;
  throw ConfigError(fmt::format(
      "{}: {} holds for the whole run; give it on the command line or in the run's config file", place, shown));
}

ConfigNode placed(const ConfigNode& value, const std::string& place, const std::string& path) {
  ConfigNode out = value;
  if (value.is_list()) {
    ConfigNode::List items;
    for (const ConfigNode& item : value.as_list()) {
      items.push_back(placed(item, place, fmt::format("{}[{}]", path, items.size())));
    }
    out = ConfigNode::list(std::move(items));
  } else if (value.is_map()) {
    ConfigNode::Map children;
    for (const auto& [name, child] : value.as_map()) {
      children.emplace_back(name, placed(child, place, excerpt(fmt::format("{}.{}", path, name), 240)));
    }
    out = ConfigNode::map(std::move(children));
  }
  out.set_place(place, path);
  return out;
}

void PromptOverrides::add(const config::KeySpec& key, ConfigNode value, const std::string& shown) {
  check_per_job(key, shown, value.origin());
  if (value.is_null()) return;
  check_characters(value);
  if (const ConfigNode* before = map_.find(key.name)) {
    const bool is_prompt = key.name == "prompt";
    if (!key.is_list || is_prompt || !before->is_list() || !value.is_list()) {
      throw ConfigError(before->path() == shown ? fmt::format("{}: {} stands twice", value.origin(), shown)
                                                : fmt::format("{}: {} is given beside {}; give one of them",
                                                              value.origin(), shown, before->path()));
    }
    ConfigNode::List items = before->as_list();
    items.insert(items.end(), value.as_list().begin(), value.as_list().end());
    ConfigNode joined = ConfigNode::list(std::move(items));
    joined.set_place(before->origin(), before->path());
    value = std::move(joined);
  }
  map_.set(key.name, std::move(value));
}

void PromptOverrides::finish(PromptLine& line) const {
  const ConfigNode checked = keys_.checked(map_);
  const ConfigNode* prompts = checked.find("prompt");
  if (!prompts) throw ConfigError(fmt::format("{}: the prompt is missing", line.place));
  const ConfigNode::List& list = prompts->as_list();
  if (list.size() != 1) {
    throw ConfigError(fmt::format("{}: prompt: expected one prompt, got {}", prompts->origin(), list.size()));
  }
  line.text = list[0].as_string();
  if (line.text.find_first_not_of(" \t\r\n") == std::string::npos) {
    throw ConfigError(fmt::format("{}: the prompt is empty", prompts->origin()));
  }
  for (const auto& [name, value] : checked.as_map()) {
    if (name != "prompt") line.overrides.set(name, value);
  }
}

}  // namespace strobe::pipelines
