#include "config/yaml_loader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <new>
#include <sstream>
#include <unordered_map>

#include "core/text_file.h"

namespace strobe::config {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr uintmax_t kMaxFileBytes = uintmax_t{1} << 20;
// Every node stores its path: without a limit one long key above a long list would multiply.
constexpr size_t kMaxPathBytes = 240;
constexpr size_t kMaxPlainKeyBytes = 1000;

std::string shorten(std::string path) { return path.size() > kMaxPathBytes ? excerpt(path, kMaxPathBytes) : path; }

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

bool all_digits(std::string_view text, std::string_view digits) {
  return !text.empty() && text.find_first_not_of(digits) == std::string_view::npos;
}

// [-+]? ( . digits | digits ( . digits? )? ) ( [eE] [-+]? digits )?
bool is_float_form(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  const size_t exponent = text.find_first_of("eE");
  if (exponent != std::string_view::npos) {
    std::string_view power = text.substr(exponent + 1);
    if (!power.empty() && (power[0] == '-' || power[0] == '+')) power.remove_prefix(1);
    if (!all_digits(power, kDigits)) return false;
    text = text.substr(0, exponent);
  }
  const size_t point = text.find('.');
  if (point == std::string_view::npos) return all_digits(text, kDigits);
  const std::string_view whole = text.substr(0, point), part = text.substr(point + 1);
  return (whole.empty() || all_digits(whole, kDigits)) && (part.empty() || all_digits(part, kDigits)) &&
         !(whole.empty() && part.empty());
}

ConfigNode parse_integer(std::string_view text, int base, const std::string& place) {
  const std::string_view all = text;
  if (base != 10) text.remove_prefix(2);
  if (text.starts_with('+')) text.remove_prefix(1);
  int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (result.ec != std::errc()) {
    throw ConfigError(fmt::format("{}: the integer {} does not fit 64 bits", place, excerpt(all)));
  }
  return ConfigNode::integer(value);
}

class NodeBuilder final : public YAML::EventHandler {
 public:
  NodeBuilder(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {}

  ConfigNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) refuse(mark, "a second document; a file holds one");
  }
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { refuse(mark, "anchors (&name) are not read"); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "aliases (*name) are not read"); }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check_properties(mark, "?", anchor);
    if (expects_key()) refuse(mark, "a key is missing, or null without quotes");
    // The parser points an absent value at whatever comes next.
    const bool is_in_map = !frames_.empty() && frames_.back().is_map;
    add(ConfigNode::null(), is_in_map ? frames_.back().key_place : place(mark));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_properties(mark, tag, anchor);
    if (const size_t bad = value.find('\0'); bad != std::string::npos) refuse(mark, "a zero byte in a string");
    // The parser turns the escapes \N and \_ into single bytes.
    if (find_invalid_utf8(value) != std::string_view::npos) refuse(mark, "an escape that gives no UTF-8");
    check_quotes(mark);
    const bool is_plain = tag == "?";
    if (expects_key()) {
      if (is_plain && value == "<<")
        refuse(mark, "merge keys (<<) are not read; a file may extend one other by extends:");
      set_key(mark, value);
      return;
    }
    add(is_plain ? parse_plain_scalar(value, place(mark)) : ConfigNode::string(value), place(mark));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_properties(mark, tag, anchor);
    open(mark, /*is_map=*/false);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_properties(mark, tag, anchor);
    open(mark, /*is_map=*/true);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    bool is_map = false;
    bool has_key = false;
    std::string path, place, key, key_place;
    ConfigNode::List list;
    ConfigNode::Map map;
    std::unordered_map<std::string, int> lines;  // of the keys so far
  };

  std::string place(const YAML::Mark& mark) const {
    return fmt::format("{}:{}:{}", origin_, std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1);
  }

  [[noreturn]] void refuse(const YAML::Mark& mark, std::string_view message) const {
    throw ConfigError(fmt::format("{}: {}", place(mark), message));
  }

  // The bare tag "!" looks like a quoted scalar in the event, so the text is asked.
  void check_properties(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    const char first =
        mark.pos >= 0 && static_cast<size_t>(mark.pos) < text_.size() ? text_[static_cast<size_t>(mark.pos)] : ' ';
    if ((tag != "?" && tag != "!") || first == '!') refuse(mark, "tags (!type) are not read");
    if (anchor != YAML::NullAnchor || first == '&') refuse(mark, "anchors (&name) are not read");
  }

  // The parser takes the end of the text for the closing quote when a line end stands before it.
  void check_quotes(const YAML::Mark& mark) const {
    size_t i = static_cast<size_t>(std::max(mark.pos, 0));
    if (i >= text_.size() || (text_[i] != '\'' && text_[i] != '"')) return;
    const char quote = text_[i];
    for (++i; i < text_.size(); ++i) {
      if (quote == '"' && text_[i] == '\\') {
        ++i;
      } else if (text_[i] == quote) {
        if (quote == '"' || i + 1 >= text_.size() || text_[i + 1] != quote) return;
        ++i;
      }
    }
    refuse(mark, "the quote is not closed");
  }

  bool expects_key() const { return !frames_.empty() && frames_.back().is_map && !frames_.back().has_key; }

  void set_key(const YAML::Mark& mark, const std::string& name) {
    Frame& frame = frames_.back();
    const auto [row, is_new] = frame.lines.emplace(name, mark.line + 1);
    if (!is_new) {
      throw ConfigError(fmt::format("{}: {}: the key stands twice in one map, first in line {}", place(mark),
                                    join(frame.path, name), row->second));
    }
    frame.key = name;
    frame.key_place = place(mark);
    frame.has_key = true;
  }

  static std::string join(const std::string& path, const std::string& key) {
    return shorten(path.empty() ? key : path + "." + key);
  }

  std::string next_path() const {
    if (frames_.empty()) return "";
    const Frame& frame = frames_.back();
    return frame.is_map ? join(frame.path, frame.key) : shorten(fmt::format("{}[{}]", frame.path, frame.list.size()));
  }

  void add(ConfigNode node, std::string where) {
    node.set_place(std::move(where), next_path());
    if (frames_.empty()) {
      root_ = std::move(node);
    } else if (Frame& frame = frames_.back(); frame.is_map) {
      frame.map.emplace_back(std::move(frame.key), std::move(node));
      frame.has_key = false;
    } else {
      frame.list.push_back(std::move(node));
    }
  }

  void open(const YAML::Mark& mark, bool is_map) {
    if (expects_key()) refuse(mark, "a list or a map as a key");
    if (frames_.size() >= kMaxDepth) refuse(mark, fmt::format("nested deeper than {} levels", kMaxDepth));
    std::string path = next_path();
    Frame& frame = frames_.emplace_back();
    frame.is_map = is_map;
    frame.path = std::move(path);
    frame.place = place(mark);
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    add(frame.is_map ? ConfigNode::map(std::move(frame.map)) : ConfigNode::list(std::move(frame.list)),
        std::move(frame.place));
  }

  std::string_view text_;
  const std::string& origin_;
  ConfigNode root_;
  std::vector<Frame> frames_;
  int documents_ = 0;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

// Letters, digits and what never means anything to YAML inside a word.
bool is_plain_word(const std::string& text) {
  const auto is_safe = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '/' || c == '-' || c == '+';
  };
  if (text.empty() || text[0] == '-' || !std::all_of(text.begin(), text.end(), is_safe)) return false;
  if (is_one_of(text, {"null", "Null", "NULL"}) || all_digits(text, "+-.0123456789eE")) return false;
  if (text.starts_with("0x") || text.starts_with("0o")) return false;  // may be more than an integer holds
  return parse_plain_scalar(text, "").is_string();
}

std::string text_of_string(const std::string& text) { return is_plain_word(text) ? text : quoted(text); }

std::string text_of_number(double value) {
  if (std::isnan(value)) return ".nan";
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

ConfigNode parse_plain_scalar(const std::string& text, const std::string& place) {
  if (is_one_of(text, {"", "~", "null", "Null", "NULL"})) return ConfigNode::null();
  if (is_one_of(text, {"true", "True", "TRUE"})) return ConfigNode::boolean(true);
  if (is_one_of(text, {"false", "False", "FALSE"})) return ConfigNode::boolean(false);
  const std::string_view view = text;
  const std::string_view digits = view.substr(view[0] == '-' || view[0] == '+' ? 1 : 0);
  if (all_digits(digits, "0123456789")) return parse_integer(view, 10, place);
  if (view.starts_with("0o") && all_digits(view.substr(2), "01234567")) return parse_integer(view, 8, place);
  if (view.starts_with("0x") && all_digits(view.substr(2), "0123456789abcdefABCDEF")) {
    return parse_integer(view, 16, place);
  }
  if (is_one_of(digits, {".inf", ".Inf", ".INF"})) return ConfigNode::number(view[0] == '-' ? -HUGE_VAL : HUGE_VAL);
  if (is_one_of(view, {".nan", ".NaN", ".NAN"})) return ConfigNode::number(std::nan(""));
  if (!is_float_form(view)) return ConfigNode::string(text);
  const std::string_view number = view[0] == '+' ? digits : view;
  double value = 0;
  const auto result = std::from_chars(number.data(), number.data() + number.size(), value);
  if (result.ec != std::errc()) {
    throw ConfigError(fmt::format("{}: the number {} does not fit a double", place, excerpt(text)));
  }
  return ConfigNode::number(value);
}

ConfigNode parse_yaml(std::string_view text, const std::string& origin) {
  text = without_byte_order_mark(text);
  check_text(text, origin);  // the parser takes byte 4 for the end of the text
  NodeBuilder builder(text, origin);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    const int line = std::max(error.mark.line, 0) + 1, column = std::max(error.mark.column, 0) + 1;
    throw ConfigError(fmt::format("{}:{}:{}: {}", origin, line, column, excerpt(error.msg, 240)));
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw ConfigError(fmt::format("{}: cannot be read as YAML: {}", origin, excerpt(error.what(), 240)));
  }
  return builder.take_root();
}

ConfigNode load_yaml(const std::filesystem::path& path) {
  return parse_yaml(read_text_file(path, kMaxFileBytes), path.string());
}

std::string to_yaml(const ConfigNode& node) {
  if (node.is_null()) return "null";
  if (node.is_bool()) return node.as_bool() ? "true" : "false";
  if (node.is_integer()) return fmt::format("{}", node.as_integer());
  if (node.is_number()) return text_of_number(node.as_number());
  if (node.is_string()) return text_of_string(node.as_string());
  std::string out(1, node.is_list() ? '[' : '{');
  const char* separator = "";
  if (node.is_list()) {
    for (const ConfigNode& item : node.as_list()) {
      out += separator + to_yaml(item);
      separator = ", ";
    }
  } else {
    for (const auto& [key, value] : node.as_map()) {
      const std::string name = quoted(key);
      // The parser looks for the colon of a key without `?` within 1024 bytes.
      out += separator + (name.size() > kMaxPlainKeyBytes ? "? " + name + " : " : name + ": ") + to_yaml(value);
      separator = ", ";
    }
  }
  return out + (node.is_list() ? ']' : '}');
}

}  // namespace strobe::config
