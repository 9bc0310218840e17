#include "core/config_node.h"

#include "core/text_file.h"

namespace strobe {

std::string ConfigNode::describe() const {
  if (is_null()) return "null";
  if (is_bool()) return std::get<bool>(value_) ? "true" : "false";
  if (is_integer()) return fmt::format("the integer {}", std::get<int64_t>(value_));
  if (is_number()) return fmt::format("the number {}", std::get<double>(value_));
  if (is_string()) return fmt::format("the string '{}'", excerpt(std::get<std::string>(value_)));
  return is_list() ? "a list" : "a map";
}

void ConfigNode::fail(std::string_view message) const {
  std::string place = origin_;
  if (!path_.empty()) place += (place.empty() ? "" : ": ") + path_;
  throw ConfigError(place.empty() ? std::string(message) : fmt::format("{}: {}", place, message));
}

bool ConfigNode::as_bool() const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value;
  fail(fmt::format("expected true or false, got {}", describe()));
}

int64_t ConfigNode::as_integer() const {
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return *value;
  fail(fmt::format("expected an integer, got {}", describe()));
}

double ConfigNode::as_number() const {
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  if (const double* value = std::get_if<double>(&value_)) return *value;
  fail(fmt::format("expected a number, got {}", describe()));
}

const std::string& ConfigNode::as_string() const {
  if (const std::string* value = std::get_if<std::string>(&value_)) return *value;
  fail(fmt::format("expected a string, got {}", describe()));
}

const ConfigNode::List& ConfigNode::as_list() const {
  if (const List* value = std::get_if<List>(&value_)) return *value;
  fail(fmt::format("expected a list, got {}", describe()));
}

const ConfigNode::Map& ConfigNode::as_map() const {
  if (const Map* value = std::get_if<Map>(&value_)) return *value;
  fail(fmt::format("expected a map, got {}", describe()));
}

const ConfigNode* ConfigNode::find(std::string_view key) const {
  const Map* map = std::get_if<Map>(&value_);
  if (!map) return nullptr;
  for (const auto& [name, child] : *map) {
    if (name == key) return &child;
  }
  return nullptr;
}

const ConfigNode& ConfigNode::at(std::string_view key) const {
  if (!is_map()) fail(fmt::format("expected a map with the key '{}', got {}", excerpt(key), describe()));
  if (const ConfigNode* child = find(key)) return *child;
  fail(fmt::format("the key '{}' is missing", excerpt(key)));
}

namespace {

const ConfigNode* present(const ConfigNode& node, std::string_view key) {
  const ConfigNode* child = node.find(key);
  return child && !child->is_null() ? child : nullptr;
}

}  // namespace

int64_t ConfigNode::get_integer(std::string_view key, int64_t fallback) const {
  const ConfigNode* child = present(*this, key);
  return child ? child->as_integer() : fallback;
}

double ConfigNode::get_number(std::string_view key, double fallback) const {
  const ConfigNode* child = present(*this, key);
  return child ? child->as_number() : fallback;
}

bool ConfigNode::get_bool(std::string_view key, bool fallback) const {
  const ConfigNode* child = present(*this, key);
  return child ? child->as_bool() : fallback;
}

std::string ConfigNode::get_string(std::string_view key, const std::string& fallback) const {
  const ConfigNode* child = present(*this, key);
  return child ? child->as_string() : fallback;
}

std::vector<int64_t> ConfigNode::get_integers(std::string_view key, const std::vector<int64_t>& fallback) const {
  const ConfigNode* child = present(*this, key);
  if (!child) return fallback;
  std::vector<int64_t> values;
  for (const ConfigNode& item : child->as_list()) values.push_back(item.as_integer());
  return values;
}

std::vector<double> ConfigNode::get_numbers(std::string_view key, const std::vector<double>& fallback) const {
  const ConfigNode* child = present(*this, key);
  if (!child) return fallback;
  std::vector<double> values;
  for (const ConfigNode& item : child->as_list()) values.push_back(item.as_number());
  return values;
}

std::vector<bool> ConfigNode::get_bools(std::string_view key, const std::vector<bool>& fallback) const {
  const ConfigNode* child = present(*this, key);
  if (!child) return fallback;
  std::vector<bool> values;
  for (const ConfigNode& item : child->as_list()) values.push_back(item.as_bool());
  return values;
}

void ConfigNode::set(std::string_view key, ConfigNode value) {
  if (is_null()) value_ = Map{};
  if (!is_map()) fail(fmt::format("expected a map, got {}", describe()));
  Map& map = std::get<Map>(value_);
  for (auto& [name, child] : map) {
    if (name == key) {
      child = std::move(value);
      return;
    }
  }
  map.emplace_back(std::string(key), std::move(value));
}

}  // namespace strobe
