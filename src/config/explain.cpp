#include "config/explain.h"

#include <algorithm>

#include "config/compose.h"
#include "config/yaml_loader.h"

namespace strobe::config {
namespace {

std::string default_of(const KeySpec& key) {
  if (!key.default_note.empty()) return key.default_note;
  return key.default_text.empty() ? "none" : key.default_text;
}

std::string explain(const KeySpec& key) {
  std::string out = fmt::format("{}: {}\n    {}", key.name, key.sentence, describe_type(key));
  if (!key.unit.empty()) out += fmt::format(" ({})", key.unit);
  out += fmt::format("; default: {}", default_of(key));
  if (!key.flags.empty()) out += fmt::format("; flag {}", key.flags);
  return out + "\n";
}

const char* json_type(KeyType type) {
  switch (type) {
    case KeyType::kInteger:
      return "integer";
    case KeyType::kNumber:
      return "number";
    case KeyType::kBoolean:
      return "boolean";
    default:
      return "string";
  }
}

ConfigNode text(const std::string& value) { return ConfigNode::string(value); }

ConfigNode limit(const KeySpec& key, double value) {
  return key.type == KeyType::kInteger ? ConfigNode::integer(static_cast<int64_t>(value)) : ConfigNode::number(value);
}

ConfigNode any_of(ConfigNode::List options) {
  ConfigNode node = ConfigNode::map();
  node.set("anyOf", ConfigNode::list(std::move(options)));
  return node;
}

ConfigNode type_node(const char* type) {
  ConfigNode node = ConfigNode::map();
  node.set("type", text(type));
  return node;
}

ConfigNode one_value_schema(const KeySpec& key) {
  ConfigNode node = type_node(json_type(key.type));
  if (key.minimum) node.set(key.is_above_minimum ? "exclusiveMinimum" : "minimum", limit(key, *key.minimum));
  if (key.maximum) node.set("maximum", limit(key, *key.maximum));
  if (!key.choices.empty()) {
    ConfigNode::List choices;
    for (const std::string& choice : key.choices) choices.push_back(text(choice));
    node.set("enum", ConfigNode::list(std::move(choices)));
  }
  if (key.takes_method_map) {
    ConfigNode map = type_node("object");
    map.set("required", ConfigNode::list({text("method")}));
    return any_of({node, map});
  }
  if (key.type == KeyType::kSize) {
    node.set("pattern", text("^[0-9]+x[0-9]+$"));
    ConfigNode axes = type_node("array");
    axes.set("items", type_node("integer"));
    axes.set("minItems", ConfigNode::integer(3));
    axes.set("maxItems", ConfigNode::integer(3));
    return any_of({node, axes});
  }
  return node;
}

ConfigNode key_schema(const KeySpec& key) {
  ConfigNode::List options = {one_value_schema(key)};
  if (key.is_list) {
    ConfigNode list = type_node("array");
    list.set("items", one_value_schema(key));
    options.push_back(list);
  }
  options.push_back(type_node("null"));
  ConfigNode node = any_of(std::move(options));
  node.set("description", text(key.unit.empty() ? key.sentence : fmt::format("{} ({})", key.sentence, key.unit)));
  if (!key.default_text.empty()) node.set("default", parse_yaml(key.default_text, "default"));
  return node;
}

ConfigNode part_schema(const KeyTable& table, const PartKind& kind) {
  ConfigNode properties = ConfigNode::map();
  for (const KeySpec& key : table.keys()) {
    if (std::find(key.parts.begin(), key.parts.end(), kind.name) != key.parts.end()) {
      properties.set(key.name, key_schema(key));
    }
  }
  ConfigNode inside = type_node("object");
  inside.set("additionalProperties", ConfigNode::boolean(false));
  inside.set("properties", properties);
  ConfigNode node = any_of({type_node("string"), inside, type_node("null")});
  node.set("description", text(fmt::format("a part: the name of a file in configs/{}, or its keys{}", kind.folder,
                                           table.find(kind.name) ? ", or the value itself" : "")));
  return node;
}

}  // namespace

std::string explain_key(const KeyTable& table, const std::string& name) {
  const KeySpec* key = table.find_alias(name);
  if (!key) throw ConfigError(table.unknown_key_message(name));
  return explain(*key);
}

std::string explain_all(const KeyTable& table) {
  std::vector<std::string> groups;
  for (const KeySpec& key : table.keys()) {
    if (std::find(groups.begin(), groups.end(), key.group) == groups.end()) groups.push_back(key.group);
  }
  std::string out;
  for (const std::string& group : groups) {
    out += fmt::format("{}# {}\n", out.empty() ? "" : "\n", group);
    for (const KeySpec& key : table.keys()) {
      if (key.group == group) out += explain(key);
    }
  }
  return out;
}

ConfigNode json_schema(const KeyTable& table, const std::string& title) {
  ConfigNode properties = ConfigNode::map(), schema = ConfigNode::map(), extends = type_node("string");
  schema.set("const", ConfigNode::integer(kSchema));
  extends.set("description", text("one parent file, relative to this one"));
  properties.set("schema", schema);
  properties.set("extends", extends);
  for (const PartKind& kind : part_kinds()) properties.set(kind.name, part_schema(table, kind));
  for (const KeySpec& key : table.keys()) {
    if (!properties.find(key.name)) properties.set(key.name, key_schema(key));
  }
  ConfigNode root = ConfigNode::map();
  root.set("$schema", text("https://json-schema.org/draft/2020-12/schema"));
  root.set("title", text(title));
  root.set("type", text("object"));
  root.set("required", ConfigNode::list({text("schema")}));
  root.set("additionalProperties", ConfigNode::boolean(false));
  root.set("properties", properties);
  return root;
}

ConfigNode with_origins(const ConfigNode& effective) {
  ConfigNode all = ConfigNode::map();
  for (const auto& [name, value] : effective.as_map()) {
    all.set(name, ConfigNode::map({{"value", value}, {"origin", text(value.origin())}}));
  }
  return all;
}

std::string show(const KeyTable& table, const ConfigNode& effective) {
  std::string out = fmt::format("schema: {}\n", kSchema);
  for (const KeySpec& key : table.keys()) {
    if (const ConfigNode* value = effective.find(key.name)) {
      out += fmt::format("{}: {}  # {}\n", key.name, to_yaml(*value), value->origin());
    } else if (key.type != KeyType::kSize) {
      out += fmt::format("# {}: {}\n", key.name, default_of(key));
    }
  }
  return out;
}

}  // namespace strobe::config
