#include "config/key_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "config/yaml_loader.h"
#include "core/nearest.h"
#include "core/text_file.h"

namespace strobe::config {
namespace {

constexpr size_t kMaxNameBytes = 64;  // more of a wrong name helps nobody, and edit distances are quadratic

std::string with_underscores(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

// A flag's message begins with what was typed; a file's with the place and the key.
[[noreturn]] void fail_value(const ConfigNode& value, const std::string& expected) {
  const bool is_flag = value.origin().starts_with("--") && !value.origin().starts_with("--set ");
  if (is_flag && !value.is_list() && !value.is_map()) {
    const std::string text = value.is_string() ? value.as_string() : to_yaml(value);
    throw ConfigError(fmt::format("{} {}: {}", value.origin(), excerpt(text), expected));
  }
  value.fail(expected);
}

[[noreturn]] void fail_type(const KeySpec& key, const ConfigNode& value) {
  const std::string what =
      value.is_string() ? fmt::format("the text '{}'", excerpt(value.as_string())) : value.describe();
  const bool is_bare = value.origin().starts_with("--") && !value.origin().starts_with("--set ");
  fail_value(value,
             is_bare ? "expected " + describe_type(key) : fmt::format("expected {}, got {}", describe_type(key), what));
}

bool is_in_range(const KeySpec& key, double value) {
  if (!std::isfinite(value)) return false;
  if (key.minimum && (key.is_above_minimum ? value <= *key.minimum : value < *key.minimum)) return false;
  return !key.maximum || value <= *key.maximum;
}

std::string number_text(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? fmt::format("{:.0f}", value) : fmt::format("{}", value);
}

std::string range_text(const KeySpec& key) {
  if (key.minimum && key.maximum) {
    return fmt::format(" {} {} to {}", key.is_above_minimum ? "above" : "from", number_text(*key.minimum),
                       number_text(*key.maximum));
  }
  if (key.minimum) return fmt::format(" {} {}", key.is_above_minimum ? "above" : "from", number_text(*key.minimum));
  if (key.maximum) return fmt::format(" up to {}", number_text(*key.maximum));
  return "";
}

std::string one_value_text(const KeySpec& key) {
  if (!key.choices.empty()) return fmt::format("one of {}", fmt::join(key.choices, ", "));
  switch (key.type) {
    case KeyType::kText:
      return "text";
    case KeyType::kPath:
      return "a path";
    case KeyType::kInteger:
      return "an integer" + range_text(key);
    case KeyType::kNumber:
      return "a number" + range_text(key);
    case KeyType::kBoolean:
      return "true or false";
    case KeyType::kSize:
      return "WIDTHxHEIGHT such as 832x480, or [frames, height, width]";
  }
  return "";
}

// Scalars and lists of scalars, as they stand behind '=' on a command line: a/b/c.
std::string option_text(const ConfigNode& value) {
  if (value.is_bool()) return value.as_bool() ? "1" : "0";
  if (value.is_integer()) return fmt::format("{}", value.as_integer());
  if (value.is_number()) return fmt::format("{}", value.as_number());
  if (value.is_string()) {
    if (value.as_string().find(',') != std::string::npos) value.fail("an option's text may hold no comma");
    return value.as_string();
  }
  if (!value.is_list()) value.fail(fmt::format("expected a value or a list of values, got {}", value.describe()));
  std::vector<std::string> items;
  for (const ConfigNode& item : value.as_list()) {
    if (item.is_list()) item.fail("a list within a list");
    items.push_back(option_text(item));
  }
  return fmt::format("{}", fmt::join(items, "/"));
}

// {method: radial, decay_factor: 1} as "radial:decay_factor=1".
std::string method_text(const ConfigNode& map) {
  const ConfigNode& method = map.at("method");
  if (!method.is_string()) method.fail(fmt::format("expected a name, got {}", method.describe()));
  std::vector<std::string> options;
  for (const auto& [name, value] : map.as_map()) {
    if (name == "method" || value.is_null()) continue;
    if (name != "options") {
      options.push_back(name + "=" + option_text(value));
      continue;
    }
    if (!value.is_map()) value.fail(fmt::format("expected a map, got {}", value.describe()));
    for (const auto& [inner, option] : value.as_map()) options.push_back(inner + "=" + option_text(option));
  }
  return method.as_string() + fmt::format("{}{}", options.empty() ? "" : ":", fmt::join(options, ","));
}

bool parse_two(const std::string& text, int64_t& width, int64_t& height) {
  const size_t x = text.find('x');
  if (x == std::string::npos) return false;
  const char *begin = text.data(), *middle = begin + x, *end = begin + text.size();
  const auto first = std::from_chars(begin, middle, width), second = std::from_chars(middle + 1, end, height);
  return first.ec == std::errc() && first.ptr == middle && second.ec == std::errc() && second.ptr == end;
}

}  // namespace

KeyTable::KeyTable(std::vector<KeySpec> keys) : keys_(std::move(keys)) {}

const KeySpec* KeyTable::find(std::string_view name) const {
  const auto found = std::find_if(keys_.begin(), keys_.end(), [&](const KeySpec& key) { return key.name == name; });
  return found == keys_.end() ? nullptr : &*found;
}

const KeySpec* KeyTable::find_alias(std::string_view name) const {
  const bool is_flag = name.starts_with("-");
  const bool is_short = is_flag && !name.starts_with("--");
  if (!is_short) {
    std::string_view bare = name;
    if (is_flag) bare.remove_prefix(2);
    const std::string wanted = with_underscores(bare);
    if (const KeySpec* key = find(wanted)) return key;
    for (const KeySpec& key : keys_) {
      for (const std::string& flag : flag_names(key)) {
        if (flag.starts_with("--") && with_underscores(flag.substr(2)) == wanted) return &key;
      }
    }
    return nullptr;
  }
  for (const KeySpec& key : keys_) {
    for (const std::string& flag : flag_names(key)) {
      if (flag == name) return &key;
    }
  }
  return nullptr;
}

std::vector<std::string> KeyTable::names() const {
  std::vector<std::string> names;
  for (const KeySpec& key : keys_) names.push_back(key.name);
  return names;
}

std::string KeyTable::unknown_key_message(std::string_view name) const {
  const std::string shown = excerpt(name, kMaxNameBytes);
  // Another word for the same key, or the key behind a path that is none.
  const KeySpec* alias = find_alias(name);
  if (!alias && name.find('.') != std::string_view::npos) alias = find_alias(name.substr(name.rfind('.') + 1));
  const std::string best = alias ? alias->name : nearest_name(shown, names());
  if (!best.empty()) return fmt::format("unknown key '{}'; did you mean '{}'?", shown, best);
  return fmt::format("unknown key '{}'; known: {}", shown, fmt::join(names(), ", "));
}

void KeyTable::add_size(const KeySpec& key, const ConfigNode& value, ConfigNode& out) const {
  std::vector<std::pair<std::string, int64_t>> axes;
  int64_t width = 0, height = 0;
  if (value.is_string() && parse_two(value.as_string(), width, height)) {
    axes = {{key.axes[1], height}, {key.axes[2], width}};
  } else if (value.is_list() && value.as_list().size() == 3) {
    for (size_t i = 0; i < 3; ++i) {
      const ConfigNode& item = value.as_list()[i];
      if (!item.is_integer()) fail_type(key, value);
      axes.emplace_back(key.axes[i], item.as_integer());
    }
  } else {
    fail_type(key, value);
  }
  for (const auto& [name, count] : axes) {
    ConfigNode axis = ConfigNode::integer(count);
    axis.set_place(value.origin(), name);
    if (out.find(name)) value.fail(fmt::format("{} is given beside {}; give one of them", key.name, name));
    out.set(name, checked_value(*find(name), axis));
  }
}

ConfigNode KeyTable::checked_value(const KeySpec& key, const ConfigNode& value) const {
  if (value.is_null()) return value;
  if (key.is_list && !value.is_list()) {
    ConfigNode list = ConfigNode::list({checked_value(key, ConfigNode::list({value})).as_list()[0]});
    list.set_place(value.origin(), key.name);
    return list;
  }
  ConfigNode out = value;
  if (key.is_list) {
    KeySpec one = key;
    one.is_list = false;
    ConfigNode::List items;
    for (const ConfigNode& item : value.as_list()) {
      if (item.is_null()) fail_type(one, item);
      items.push_back(checked_value(one, item));
    }
    out = ConfigNode::list(std::move(items));
  } else if (key.type == KeyType::kBoolean) {
    if (!value.is_bool()) fail_type(key, value);
  } else if (key.type == KeyType::kInteger) {
    if (!value.is_integer() || !is_in_range(key, value.as_number())) fail_type(key, value);
  } else if (key.type == KeyType::kNumber) {
    if (!value.is_number() || !is_in_range(key, value.as_number())) fail_type(key, value);
  } else if (key.takes_method_map && value.is_map()) {
    out = ConfigNode::string(method_text(value));
  } else {
    if (!value.is_string()) fail_type(key, value);
    const std::string& text = value.as_string();
    if (!key.choices.empty() && std::find(key.choices.begin(), key.choices.end(), text) == key.choices.end()) {
      std::string what = key.name;
      std::replace(what.begin(), what.end(), '_', ' ');
      fail_value(value, unknown_name_message(what, excerpt(text), key.choices));
    }
  }
  out.set_place(value.origin(), key.name);
  return out;
}

void KeyTable::add_checked(const ConfigNode& map, const std::string& prefix, ConfigNode& out) const {
  for (const auto& [name, value] : map.as_map()) {
    const std::string path = prefix + name;
    const KeySpec* key = find(path);
    if (!key) {
      const std::string inner = path + ".";
      const bool is_group =
          std::any_of(keys_.begin(), keys_.end(), [&](const KeySpec& other) { return other.name.starts_with(inner); });
      if (!is_group || !value.is_map()) {
        throw ConfigError(
            fmt::format("{}{}{}", value.origin(), value.origin().empty() ? "" : ": ", unknown_key_message(path)));
      }
      add_checked(value, inner, out);
      continue;
    }
    if (key->type == KeyType::kSize) {
      if (!value.is_null()) add_size(*key, value, out);
      continue;
    }
    if (out.find(key->name)) value.fail(fmt::format("{} stands twice", key->name));
    out.set(key->name, checked_value(*key, value));
  }
}

ConfigNode KeyTable::checked(const ConfigNode& map) const {
  ConfigNode out = ConfigNode::map();
  out.set_place(map.origin(), map.path());
  // Sizes last, so that the message is about the short form whatever the order in the file.
  ConfigNode sizes = ConfigNode::map(), others = ConfigNode::map();
  for (const auto& [name, value] : map.as_map()) {
    const KeySpec* key = find(name);
    (key && key->type == KeyType::kSize ? sizes : others).set(name, value);
  }
  add_checked(others, "", out);
  add_checked(sizes, "", out);
  return out;
}

ConfigNode KeyTable::parse_value(const KeySpec& key, const std::string& text, const std::string& origin) const {
  ConfigNode value = ConfigNode::string(text);
  if (key.type != KeyType::kText && key.type != KeyType::kPath && key.type != KeyType::kSize) {
    value = parse_plain_scalar(text, origin);
    if (value.is_null()) value = ConfigNode::string(text);  // refused as the wrong type, not taken for "not given"
  }
  value.set_place(origin, key.name);
  return key.type == KeyType::kSize ? value : checked_value(key, value);
}

ConfigNode KeyTable::parse_sets(const std::vector<std::string>& items) const {
  ConfigNode map = ConfigNode::map();
  for (const std::string& item : items) {
    const std::string origin = "--set " + excerpt(item);
    const size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw ConfigError(fmt::format("{}: expected key=value", origin));
    }
    const std::string name = with_underscores(item.substr(0, equals)), text = item.substr(equals + 1);
    const KeySpec* key = find(name);
    if (!key) throw ConfigError(fmt::format("{}: {}", origin, unknown_key_message(item.substr(0, equals))));
    if (map.find(name)) throw ConfigError(fmt::format("{}: {} is set twice", origin, name));
    const bool is_structured = text.starts_with('"') || text.starts_with('\'') ||
                               ((key->is_list || key->type == KeyType::kSize) && text.starts_with('['));
    const bool is_text = key->type == KeyType::kText || key->type == KeyType::kPath || key->type == KeyType::kSize;
    const bool is_null_word = text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
    ConfigNode value = is_structured              ? parse_yaml(text, origin)
                       : is_text && !is_null_word ? ConfigNode::string(text)
                                                  : parse_plain_scalar(text, origin);
    value.set_place(origin, name);
    map.set(name, std::move(value));
  }
  return checked(map);
}

ConfigNode KeyTable::with_defaults(const ConfigNode& map) const {
  ConfigNode out = ConfigNode::map();
  for (const KeySpec& key : keys_) {
    const ConfigNode* value = map.find(key.name);
    if (value && !value->is_null()) {
      out.set(key.name, *value);
    } else if (!key.default_text.empty()) {
      ConfigNode node = parse_yaml(key.default_text, "default");
      node.set_place("default", key.name);
      out.set(key.name, checked_value(key, node));
    }
  }
  return out;
}

std::string describe_type(const KeySpec& key) {
  return key.is_list ? "a list of values, each " + one_value_text(key) : one_value_text(key);
}

std::vector<std::string> flag_names(const KeySpec& key) {
  std::vector<std::string> names;
  size_t begin = 0;
  while (begin < key.flags.size()) {
    const size_t end = std::min(key.flags.find(',', begin), key.flags.size());
    names.push_back(key.flags.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

std::string long_flag(const KeySpec& key) {
  for (const std::string& flag : flag_names(key)) {
    if (flag.starts_with("--")) return flag;
  }
  return "";
}

void overlay(ConfigNode& lower, const ConfigNode& upper) {
  for (const auto& [name, value] : upper.as_map()) lower.set(name, value);
}

}  // namespace strobe::config
