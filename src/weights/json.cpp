#include "weights/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "core/error.h"
#include "core/text_file.h"

namespace strobe::weights {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr uintmax_t kMaxFileBytes = uintmax_t{64} << 20;
// Every node stores its path: without a limit one long key above a long list would multiply.
constexpr size_t kMaxPathBytes = 240;
constexpr size_t kMaxMessageBytes = 240;

// nlohmann's sentence without its own prefix and position.
std::string syntax_message(std::string_view what) {
  if (size_t column = what.find(", column "); column != std::string_view::npos) {
    if (size_t colon = what.find(": ", column); colon != std::string_view::npos) what.remove_prefix(colon + 2);
  }
  return excerpt(what, kMaxMessageBytes);
}

class NodeBuilder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  NodeBuilder(std::string_view text, const std::string& origin) : text_(text), origin_(origin) {}

  ConfigNode take_root() { return std::move(root_); }

  bool null() override { return add(ConfigNode::null()); }
  bool boolean(bool value) override { return add(ConfigNode::boolean(value)); }
  bool number_integer(int64_t value) override { return add(ConfigNode::integer(value)); }
  bool number_unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return add(ConfigNode::number(static_cast<double>(value)));
    }
    return add(ConfigNode::integer(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string&) override { return add(ConfigNode::number(value)); }
  bool string(std::string& value) override { return add(ConfigNode::string(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }

  bool start_object(size_t) override { return open(/*is_map=*/true); }
  bool start_array(size_t) override { return open(/*is_map=*/false); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    Frame& frame = frames_.back();
    if (!frame.keys.insert(name).second) {
      throw ConfigError(fmt::format("{}: {}: the key stands twice in one map", origin_, join_key(frame.path, name)));
    }
    frame.key = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // The parser counts the bytes read, the refused one among them.
    throw ConfigError(fmt::format("{}: {}", place_in_text(text_, origin_, position == 0 ? 0 : position - 1),
                                  syntax_message(error.what())));
  }

 private:
  struct Frame {
    bool is_map = false;
    std::string path;
    std::string key;
    ConfigNode::List list;
    ConfigNode::Map map;
    std::unordered_set<std::string> keys;
  };

  static std::string shorten(std::string path) {
    return path.size() > kMaxPathBytes ? excerpt(path, kMaxPathBytes) : path;
  }

  static std::string join_key(const std::string& path, const std::string& key) {
    return shorten(path.empty() ? key : path + "." + key);
  }

  std::string next_path() const {
    if (frames_.empty()) return "";
    const Frame& frame = frames_.back();
    if (frame.is_map) return join_key(frame.path, frame.key);
    return shorten(fmt::format("{}[{}]", frame.path, frame.list.size()));
  }

  bool add(ConfigNode node) {
    node.set_place(origin_, next_path());
    if (frames_.empty()) {
      root_ = std::move(node);
    } else if (Frame& frame = frames_.back(); frame.is_map) {
      frame.map.emplace_back(std::move(frame.key), std::move(node));
    } else {
      frame.list.push_back(std::move(node));
    }
    return true;
  }

  bool open(bool is_map) {
    std::string path = next_path();
    if (frames_.size() >= kMaxDepth) {
      throw ConfigError(fmt::format("{}: {}: nested deeper than {} levels", origin_, path, kMaxDepth));
    }
    Frame& frame = frames_.emplace_back();
    frame.is_map = is_map;
    frame.path = std::move(path);
    return true;
  }

  bool close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    return add(frame.is_map ? ConfigNode::map(std::move(frame.map)) : ConfigNode::list(std::move(frame.list)));
  }

  std::string_view text_;
  const std::string& origin_;
  ConfigNode root_;
  std::vector<Frame> frames_;
};

std::string quote(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append_json(std::string& out, const ConfigNode& node, int indent, int level);

void append_break(std::string& out, int indent, int level) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<size_t>(indent) * static_cast<size_t>(level), ' ');
}

void append_list(std::string& out, const ConfigNode::List& list, int indent, int level) {
  // Sizes and other short rows of scalars are read better on one line.
  const bool is_row =
      std::none_of(list.begin(), list.end(), [](const ConfigNode& item) { return item.is_list() || item.is_map(); });
  out += '[';
  for (size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out += is_row && indent >= 0 ? ", " : ",";
    if (!is_row) append_break(out, indent, level + 1);
    append_json(out, list[i], indent, level + 1);
  }
  if (!is_row) append_break(out, indent, level);
  out += ']';
}

void append_map(std::string& out, const ConfigNode::Map& map, int indent, int level) {
  out += '{';
  for (size_t i = 0; i < map.size(); ++i) {
    if (i > 0) out += ',';
    append_break(out, indent, level + 1);
    out += quote(map[i].first) + (indent < 0 ? ":" : ": ");
    append_json(out, map[i].second, indent, level + 1);
  }
  if (!map.empty()) append_break(out, indent, level);
  out += '}';
}

void append_json(std::string& out, const ConfigNode& node, int indent, int level) {
  if (node.is_null()) {
    out += "null";
  } else if (node.is_bool()) {
    out += node.as_bool() ? "true" : "false";
  } else if (node.is_integer()) {
    out += fmt::format("{}", node.as_integer());
  } else if (node.is_number()) {
    if (!std::isfinite(node.as_number())) node.fail(fmt::format("JSON cannot hold {}", node.describe()));
    out += nlohmann::json(node.as_number()).dump();
  } else if (node.is_string()) {
    out += quote(node.as_string());
  } else if (node.is_list()) {
    append_list(out, node.as_list(), indent, level);
  } else {
    append_map(out, node.as_map(), indent, level);
  }
}

}  // namespace

ConfigNode parse_json(std::string_view text, const std::string& origin) {
  // The parser takes a zero byte for the end of the text and would not look at what follows.
  if (size_t zero = text.find('\0'); zero != std::string_view::npos) {
    throw ConfigError(fmt::format("{}: a zero byte", place_in_text(text, origin, zero)));
  }
  NodeBuilder builder(text, origin);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take_root();
}

ConfigNode load_json(const std::filesystem::path& path) {
  return parse_json(read_whole_file(path, kMaxFileBytes), path.string());
}

std::string to_json(const ConfigNode& node, int indent) {
  std::string out;
  append_json(out, node, indent, 0);
  return out;
}

}  // namespace strobe::weights
