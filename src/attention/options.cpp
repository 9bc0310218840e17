#include "attention/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/nearest.h"

namespace strobe::attention {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> pieces;
  size_t first = 0;
  while (true) {
    const size_t end = text.find(separator, first);
    pieces.push_back(text.substr(first, end - first));
    if (end == std::string::npos) return pieces;
    first = end + 1;
  }
}

std::optional<double> to_number(const std::string& text) {
  double value = 0;
  const char* first = text.data();
  const char* last = first + text.size();
  if (first != last && *first == '+') ++first;
  const auto [end, code] = std::from_chars(first, last, value);
  if (code != std::errc{} || end != last || !std::isfinite(value)) return {};
  return value;
}

std::optional<int64_t> to_integer(const std::string& text) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) return {};
  return value;
}

std::string number_text(double value) { return fmt::format("{}", value); }

template <class T>
std::string joined(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) text += (text.empty() ? "" : "/") + fmt::format("{}", value);
  return text;
}

std::string scalar_text(const ConfigNode& node) {
  if (node.is_string()) return node.as_string();
  if (node.is_bool()) return node.as_bool() ? "1" : "0";
  if (node.is_integer()) return fmt::format("{}", node.as_integer());
  if (node.is_number()) return number_text(node.as_number());
  if (node.is_list()) {
    std::vector<std::string> pieces;
    for (const ConfigNode& item : node.as_list()) pieces.push_back(scalar_text(item));
    return joined(pieces);
  }
  node.fail(fmt::format("expected a value, found {}", node.describe()));
}

std::string range_text(const char* what, OptionRange range) {
  return fmt::format("{} in [{}, {}]", what, range.min, range.max);
}

}  // namespace

std::optional<IndexSet> IndexSet::parse(const std::string& text) {
  IndexSet set;
  if (text.empty() || text == "all") return set;
  for (const std::string& piece : split(text, '/')) {
    const size_t dash = piece.find('-');
    const auto first = to_integer(piece.substr(0, dash));
    const auto last = dash == std::string::npos ? first : to_integer(piece.substr(dash + 1));
    if (!first || !last || *first < 0 || *last < *first) return {};
    set.ranges_.emplace_back(*first, *last);
  }
  return set;
}

bool IndexSet::contains(int64_t index) const {
  if (ranges_.empty()) return true;
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [index](const auto& range) { return index >= range.first && index <= range.second; });
}

int64_t IndexSet::last() const {
  int64_t last = -1;
  for (const auto& range : ranges_) last = std::max(last, range.second);
  return last;
}

std::string IndexSet::text() const {
  std::string text;
  for (const auto& [first, last] : ranges_) {
    text += (text.empty() ? "" : "/") + (first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
  }
  return text.empty() ? "all" : text;
}

OptionReader::OptionReader(std::string method, const ConfigNode& options)
    : method_(std::move(method)), options_(options) {
  if (!options_.is_null() && !options_.is_map()) {
    options_.fail(fmt::format("{}: options: expected a map, found {}", method_, options_.describe()));
  }
}

std::optional<std::string> OptionReader::given(const std::string& name) const {
  const ConfigNode* node = options_.find(name);
  if (node == nullptr || node->is_null()) return {};
  return scalar_text(*node);
}

bool OptionReader::is_given(const std::string& name) const { return given(name).has_value(); }

void OptionReader::declare(const std::string& name, const std::string& type, const std::string& fallback,
                           const std::string& sentence) {
  descriptions_.push_back({.name = name, .type = type, .fallback = fallback, .sentence = sentence});
}

void OptionReader::fail(const std::string& name, const std::string& message) const {
  const std::string text = fmt::format("{}: {}: {}", method_, name, message);
  const ConfigNode* node = options_.find(name);
  if (node != nullptr && !node->origin().empty()) throw ConfigError(node->origin() + ": " + text);
  throw ConfigError(text);
}

std::optional<int64_t> OptionReader::optional_integer(const std::string& name, OptionRange range,
                                                      const std::string& sentence) {
  const std::string type = range_text("integer", range);
  declare(name, type, "", sentence);
  const auto text = given(name);
  if (!text) return {};
  const auto value = to_integer(*text);
  if (!value || static_cast<double>(*value) < range.min || static_cast<double>(*value) > range.max) {
    fail(name, fmt::format("expected an {}, found '{}'", type, *text));
  }
  return value;
}

int64_t OptionReader::integer(const std::string& name, int64_t fallback, OptionRange range,
                              const std::string& sentence) {
  const auto value = optional_integer(name, range, sentence);
  descriptions_.back().fallback = fmt::format("{}", fallback);
  return value.value_or(fallback);
}

std::optional<double> OptionReader::optional_number(const std::string& name, OptionRange range,
                                                    const std::string& sentence) {
  const std::string type = range_text("number", range);
  declare(name, type, "", sentence);
  const auto text = given(name);
  if (!text) return {};
  const auto value = to_number(*text);
  if (!value || *value < range.min || *value > range.max) {
    fail(name, fmt::format("expected a {}, found '{}'", type, *text));
  }
  return value;
}

double OptionReader::number(const std::string& name, double fallback, OptionRange range, const std::string& sentence) {
  const auto value = optional_number(name, range, sentence);
  descriptions_.back().fallback = number_text(fallback);
  return value.value_or(fallback);
}

bool OptionReader::flag(const std::string& name, bool fallback, const std::string& sentence) {
  declare(name, "0 or 1", fallback ? "1" : "0", sentence);
  const auto text = given(name);
  if (!text) return fallback;
  if (*text == "1" || *text == "true" || *text == "on") return true;
  if (*text == "0" || *text == "false" || *text == "off") return false;
  fail(name, fmt::format("expected 0 or 1, found '{}'", *text));
}

std::string OptionReader::choice(const std::string& name, const std::string& fallback,
                                 const std::vector<std::string>& choices, const std::string& sentence) {
  declare(name, fmt::format("{}", fmt::join(choices, ", ")), fallback, sentence);
  const auto text = given(name);
  if (!text) return fallback;
  if (std::find(choices.begin(), choices.end(), *text) == choices.end()) {
    fail(name, unknown_name_message("choice", *text, choices));
  }
  return *text;
}

std::string OptionReader::text(const std::string& name, const std::string& fallback, const std::string& type,
                               const std::string& sentence) {
  declare(name, type, fallback, sentence);
  return given(name).value_or(fallback);
}

std::vector<double> OptionReader::numbers(const std::string& name, const std::vector<double>& fallback, size_t count,
                                          OptionRange range, const std::string& sentence) {
  const std::string type = count == 0 ? range_text("numbers a/b/...", range)
                                      : fmt::format("{} {}", count, range_text("numbers a/b/...", range));
  declare(name, type, joined(fallback), sentence);
  const auto text = given(name);
  if (!text) return fallback;
  std::vector<double> values;
  for (const std::string& piece : split(*text, '/')) {
    const auto value = to_number(piece);
    if (!value || *value < range.min || *value > range.max) {
      fail(name, fmt::format("expected {}, found '{}'", type, *text));
    }
    values.push_back(*value);
  }
  if (count != 0 && values.size() != count) fail(name, fmt::format("expected {}, found '{}'", type, *text));
  return values;
}

std::vector<int64_t> OptionReader::integers(const std::string& name, const std::vector<int64_t>& fallback, size_t count,
                                            OptionRange range, const std::string& sentence) {
  const std::string type = count == 0 ? range_text("integers a/b/...", range)
                                      : fmt::format("{} {}", count, range_text("integers a/b/...", range));
  declare(name, type, joined(fallback), sentence);
  const auto text = given(name);
  if (!text) return fallback;
  std::vector<int64_t> values;
  for (const std::string& piece : split(*text, '/')) {
    const auto value = to_integer(piece);
    if (!value || static_cast<double>(*value) < range.min || static_cast<double>(*value) > range.max) {
      fail(name, fmt::format("expected {}, found '{}'", type, *text));
    }
    values.push_back(*value);
  }
  if (count != 0 && values.size() != count) fail(name, fmt::format("expected {}, found '{}'", type, *text));
  return values;
}

IndexSet OptionReader::indices(const std::string& name, const std::string& sentence) {
  declare(name, "0-based inclusive sets such as 0-4/9", "all", sentence);
  const auto text = given(name);
  const auto set = IndexSet::parse(text.value_or(""));
  if (!set) fail(name, fmt::format("expected 0-based inclusive sets such as 0-4/9, found '{}'", *text));
  return *set;
}

void OptionReader::finish() const {
  if (!options_.is_map()) return;
  std::vector<std::string> names;
  for (const OptionDescription& option : descriptions_) names.push_back(option.name);
  for (const auto& [name, node] : options_.as_map()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string message = unknown_name_message("option of the method '" + method_ + "':", name, names);
    throw ConfigError(node.origin().empty() ? message : node.origin() + ": " + message);
  }
}

std::string OptionReader::effective() const {
  std::string text;
  for (const OptionDescription& option : descriptions_) {
    const std::string value = given(option.name).value_or(option.fallback);
    if (!value.empty()) text += (text.empty() ? "" : ",") + option.name + "=" + value;
  }
  return text;
}

ConfigNode parse_option_text(const std::string& text, const std::string& what) {
  ConfigNode options = ConfigNode::map();
  if (text.empty()) return options;
  for (const std::string& piece : split(text, ',')) {
    const size_t equals = piece.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw ConfigError(fmt::format("{}: expected key=value, found '{}'", what, piece));
    }
    const std::string name = piece.substr(0, equals);
    if (options.find(name) != nullptr) throw ConfigError(fmt::format("{}: {} is given twice", what, name));
    options.set(name, ConfigNode::string(piece.substr(equals + 1)));
  }
  return options;
}

}  // namespace strobe::attention
