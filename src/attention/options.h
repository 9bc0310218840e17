// Reads the options of a method: `radial:decay_factor=0.5,sink_frames=1` on the command line, a map in YAML.
//
// Contract  Every getter declares an option with its default and its range, and gives the value in force. Text, numbers
//           and booleans are taken alike ("0.5" is 0.5); lists are `a/b/c` or YAML lists; booleans are 0/1 or
//           true/false. finish() refuses what no getter asked for, with the nearest name.
// Errors    ConfigError with the option's place, what was expected and what was found.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/config_node.h"

namespace strobe::attention {

// 0-based indices as inclusive ranges: `0-4/9`. Empty text: every index.
class IndexSet {
 public:
  IndexSet() = default;  // every index
  // ConfigError text in `error` where the text is no set; the set is then every index.
  static std::optional<IndexSet> parse(const std::string& text);
  bool contains(int64_t index) const;
  bool is_all() const { return ranges_.empty(); }
  int64_t last() const;  // largest index named, -1 for every index
  std::string text() const;

 private:
  std::vector<std::pair<int64_t, int64_t>> ranges_;
};

struct OptionRange {
  double min = 0;
  double max = 0;
};

struct OptionDescription {
  std::string name;
  std::string type;      // "integer in [1, 4096]", "half or full"
  std::string fallback;  // as text
  std::string sentence;
};

class OptionReader {
 public:
  // `options`: a map or null. `method` names it in messages.
  OptionReader(std::string method, const ConfigNode& options);

  int64_t integer(const std::string& name, int64_t fallback, OptionRange range, const std::string& sentence);
  std::optional<int64_t> optional_integer(const std::string& name, OptionRange range, const std::string& sentence);
  double number(const std::string& name, double fallback, OptionRange range, const std::string& sentence);
  std::optional<double> optional_number(const std::string& name, OptionRange range, const std::string& sentence);
  bool flag(const std::string& name, bool fallback, const std::string& sentence);
  std::string choice(const std::string& name, const std::string& fallback, const std::vector<std::string>& choices,
                     const std::string& sentence);
  std::string text(const std::string& name, const std::string& fallback, const std::string& type,
                   const std::string& sentence);
  // As many as `count` says, 0: any number of them.
  std::vector<double> numbers(const std::string& name, const std::vector<double>& fallback, size_t count,
                              OptionRange range, const std::string& sentence);
  std::vector<int64_t> integers(const std::string& name, const std::vector<int64_t>& fallback, size_t count,
                                OptionRange range, const std::string& sentence);
  IndexSet indices(const std::string& name, const std::string& sentence);

  // Throws ConfigError "METHOD: NAME: message" at the option's place; for rules between options.
  [[noreturn]] void fail(const std::string& name, const std::string& message) const;
  bool is_given(const std::string& name) const;
  void finish() const;

  const std::string& method() const { return method_; }
  const std::vector<OptionDescription>& descriptions() const { return descriptions_; }
  // Every option with the value in force, in the order of the getters: "decay_factor=1,sink_frames=1".
  std::string effective() const;

 private:
  std::optional<std::string> given(const std::string& name) const;
  void declare(const std::string& name, const std::string& type, const std::string& fallback,
               const std::string& sentence);

  std::string method_;
  ConfigNode options_;
  std::vector<OptionDescription> descriptions_;
};

// "a=1,b=0.5/0.6" as a map of texts. ConfigError naming `what` for a piece without '='.
ConfigNode parse_option_text(const std::string& text, const std::string& what);

}  // namespace strobe::attention
