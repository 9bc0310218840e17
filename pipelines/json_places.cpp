#include "pipelines/json_places.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/text_file.h"
#include "pipelines/prompt_overrides.h"
#include "weights/json.h"

namespace strobe::pipelines {
namespace {

size_t skip_space(std::string_view text, size_t i) {
  return std::min(text.find_first_not_of(" \t\r\n", i), text.size());
}

// Where the document begins: the parser passes over a byte order mark, as joined files have them inside.
size_t document_begin(std::string_view text) {
  return skip_space(text, text.size() - without_byte_order_mark(text).size());
}

size_t skip_string(std::string_view text, size_t i) {
  for (++i; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\') ++i;
  }
  return i + 1;
}

// A loop, since depth is the file's choice.
size_t skip_value(std::string_view text, size_t i) {
  size_t depth = 0;
  do {
    i = skip_space(text, i);
    if (i >= text.size()) break;
    const char c = text[i];
    if (c == '"') {
      i = skip_string(text, i);
    } else if (c == '[' || c == '{') {
      ++depth, ++i;
    } else if (c == ']' || c == '}') {
      --depth, ++i;
    } else if (c == ',' || c == ':') {
      ++i;
    } else {
      i = std::min(text.find_first_of(",:[]{}\" \t\r\n", i), text.size());
    }
  } while (depth > 0);
  return i;
}

// Where the values of the list or map at `begin` begin. The text has been parsed: only what is right need be understood.
std::vector<size_t> value_offsets(std::string_view text, size_t begin) {
  std::vector<size_t> offsets;
  if (begin >= text.size() || (text[begin] != '[' && text[begin] != '{')) return offsets;
  const bool is_map = text[begin] == '{';
  for (size_t i = skip_space(text, begin + 1); i < text.size() && text[i] != ']' && text[i] != '}';) {
    if (is_map) i = skip_space(text, skip_space(text, skip_string(text, i)) + 1);
    offsets.push_back(i);
    i = skip_space(text, skip_value(text, i));
    if (i < text.size() && text[i] == ',') i = skip_space(text, i + 1);
  }
  return offsets;
}

// "file:line:column" of growing offsets, the text walked once.
class PlaceCounter {
 public:
  PlaceCounter(std::string_view text, std::string file, size_t first_line)
      : text_(text), file_(std::move(file)), line_(first_line) {}

  std::string place(size_t offset) {
    for (; at_ < offset; ++at_) {
      if (text_[at_] != '\n') continue;
      ++line_;
      line_begin_ = at_ + 1;
    }
    return fmt::format("{}:{}:{}", file_, line_, offset - line_begin_ + 1);
  }

 private:
  std::string_view text_;
  std::string file_;
  size_t line_;
  size_t at_ = 0, line_begin_ = 0;
};

// The node at `offset` with places down to `levels` below it.
ConfigNode with_places(const ConfigNode& node, size_t offset, int levels, std::string_view text,
                       PlaceCounter& counter) {
  const std::string place = counter.place(offset);
  if (levels == 0 || (!node.is_list() && !node.is_map())) return placed(node, place, node.path());
  const std::vector<size_t> offsets = value_offsets(text, offset);
  ConfigNode out;
  if (node.is_list()) {
    const ConfigNode::List& items = node.as_list();
    STROBE_CHECK(offsets.size() == items.size(), "JSON: {} places for {} values", offsets.size(), items.size());
    ConfigNode::List list;
    for (size_t i = 0; i < items.size(); ++i) {
      list.push_back(with_places(items[i], offsets[i], levels - 1, text, counter));
    }
    out = ConfigNode::list(std::move(list));
  } else {
    const ConfigNode::Map& items = node.as_map();
    STROBE_CHECK(offsets.size() == items.size(), "JSON: {} places for {} values", offsets.size(), items.size());
    ConfigNode::Map map;
    for (size_t i = 0; i < items.size(); ++i) {
      map.emplace_back(items[i].first, with_places(items[i].second, offsets[i], levels - 1, text, counter));
    }
    out = ConfigNode::map(std::move(map));
  }
  out.set_place(place, node.path());
  return out;
}

}  // namespace

ConfigNode parse_placed_json(std::string_view text, const std::string& file) {
  const ConfigNode root = weights::parse_json(text, file);
  PlaceCounter counter(text, file, 1);
  const int levels = root.is_map() ? 3 : 2;
  return with_places(root, document_begin(text), levels, text, counter);
}

ConfigNode parse_json_line(std::string_view line, const std::string& file, size_t number) {
  ConfigNode root;
  try {
    root = weights::parse_json(line, "");
  } catch (const ConfigError& error) {
    // Without a name the message begins with the place in this line, ":1:12: ", or has none, ": ".
    std::string_view message = error.what();
    if (message.starts_with(":1:")) message.remove_prefix(2);
    throw ConfigError(fmt::format("{}:{}{}", file, number, message));
  }
  PlaceCounter counter(line, file, number);
  return with_places(root, document_begin(line), 1, line, counter);
}

}  // namespace strobe::pipelines
