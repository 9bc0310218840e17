// A value tree with origins: what a JSON or YAML file becomes before anything reads it.
//
// Contract  Maps keep the file's key order. Every node knows where it stands (file:line:column, as far as the parser
//           tells) and its key path, so that a message can point at it. Getters throw ConfigError naming both.
// Readers   src/weights/json.h (JSON), src/config/yaml_loader.h (YAML).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.h"

namespace strobe {

class ConfigNode {
 public:
  struct Null {};
  using List = std::vector<ConfigNode>;
  using Map = std::vector<std::pair<std::string, ConfigNode>>;

  ConfigNode() = default;
  static ConfigNode null() { return {}; }
  static ConfigNode boolean(bool value) { return ConfigNode(value); }
  static ConfigNode integer(int64_t value) { return ConfigNode(value); }
  static ConfigNode number(double value) { return ConfigNode(value); }
  static ConfigNode string(std::string value) { return ConfigNode(std::move(value)); }
  static ConfigNode list(List value = {}) { return ConfigNode(std::move(value)); }
  static ConfigNode map(Map value = {}) { return ConfigNode(std::move(value)); }

  bool is_null() const { return std::holds_alternative<Null>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(value_); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_list() const { return std::holds_alternative<List>(value_); }
  bool is_map() const { return std::holds_alternative<Map>(value_); }

  // The value itself; ConfigError if the node has another type. An integer is also a number.
  bool as_bool() const;
  int64_t as_integer() const;
  double as_number() const;
  const std::string& as_string() const;
  const List& as_list() const;
  const Map& as_map() const;

  // Child of a map, or null when absent or the node is no map.
  const ConfigNode* find(std::string_view key) const;
  // Child of a map; ConfigError naming the path when absent.
  const ConfigNode& at(std::string_view key) const;

  // Typed child with a default for an absent or null key.
  int64_t get_integer(std::string_view key, int64_t fallback) const;
  double get_number(std::string_view key, double fallback) const;
  bool get_bool(std::string_view key, bool fallback) const;
  std::string get_string(std::string_view key, const std::string& fallback) const;
  std::vector<int64_t> get_integers(std::string_view key, const std::vector<int64_t>& fallback) const;
  std::vector<double> get_numbers(std::string_view key, const std::vector<double>& fallback) const;
  std::vector<bool> get_bools(std::string_view key, const std::vector<bool>& fallback) const;

  // Adds or replaces a child of a map.
  void set(std::string_view key, ConfigNode value);

  // Where the node stands: "run.yaml:14:5" or "config.json", and "attention.options.window".
  const std::string& origin() const { return origin_; }
  const std::string& path() const { return path_; }
  void set_place(std::string origin, std::string path) {
    origin_ = std::move(origin);
    path_ = std::move(path);
  }

  // Throws ConfigError "origin: path: message".
  [[noreturn]] void fail(std::string_view message) const;
  // "a map", "an integer (3)", ... for messages.
  std::string describe() const;

 private:
  template <class T>
  explicit ConfigNode(T value) : value_(std::move(value)) {}

  std::variant<Null, bool, int64_t, double, std::string, List, Map> value_;
  std::string origin_;
  std::string path_;
};

}  // namespace strobe
