#include "pipelines/prompt_flags.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/nearest.h"
#include "core/text_file.h"
#include "pipelines/prompt_overrides.h"

namespace strobe::pipelines {
namespace {

using config::KeySpec;
using config::KeyTable;

constexpr size_t kMaxNameBytes = 64;  // edit distances are quadratic

bool is_space(char c) { return c == ' ' || c == '\t'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Behind the closing quote of what begins at `begin`, its text appended to `out`; npos if it is not closed.
size_t read_quoted(std::string_view text, size_t begin, std::string& out) {
  const char quote = text[begin];
  for (size_t i = begin + 1; i < text.size(); ++i) {
    if (text[i] == quote) return i + 1;
    const bool is_escape =
        quote == '"' && text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\');
    out += text[is_escape ? ++i : i];
  }
  return std::string_view::npos;
}

class LineReader {
 public:
  LineReader(const TextLine& line, const KeyTable& keys) : text_(line.text), place_(line.place), keys_(keys) {}

  void read(PromptLine& out) {
    if (const size_t bad = text_.find('\r'); bad != std::string_view::npos) {
      fail(bad, "a carriage return inside the line; lines end in \\n or \\r\\n");
    }
    size_t i = read_prompt(out.text);
    PromptOverrides overrides(keys_);
    ConfigNode prompt = ConfigNode::string(out.text);
    prompt.set_place(out.place, "prompt");
    overrides.add(*keys_.find("prompt"), std::move(prompt), "prompt");
    while (i < text_.size()) i = skip_spaces(read_flag(i, overrides));
    overrides.finish(out);
  }

 private:
  std::string place(size_t offset) const { return fmt::format("{}:{}", place_, offset + 1); }

  [[noreturn]] void fail(size_t offset, std::string_view message) const {
    throw ConfigError(fmt::format("{}: {}", place(offset), message));
  }

  size_t skip_spaces(size_t i) const {
    while (i < text_.size() && is_space(text_[i])) ++i;
    return i;
  }
  size_t word_end(size_t i) const {
    while (i < text_.size() && !is_space(text_[i])) ++i;
    return i;
  }
  bool has_letter_at(size_t i) const { return i < text_.size() && is_letter(text_[i]); }

  // Whether the word that begins here is a flag. A single dash begins too many words to count without a known letter.
  bool begins_flag(size_t i) const {
    if (text_.substr(i).starts_with("--")) return has_letter_at(i + 2);
    return i < text_.size() && text_[i] == '-' && has_letter_at(i + 1) &&
           (i + 2 == text_.size() || is_space(text_[i + 2])) && keys_.find_alias(text_.substr(i, 2)) != nullptr;
  }

  // Where the flags begin, the end of the line if there are none.
  size_t read_prompt(std::string& prompt) const {
    const size_t begin = skip_spaces(0);
    if (begin < text_.size() && text_[begin] == '"') {
      const size_t end = read_quoted(text_, begin, prompt);
      if (end == std::string_view::npos) {
        fail(begin, "the quote is not closed; a prompt that begins with one goes in quotes as a whole, as \"\\\"...\"");
      }
      const size_t next = skip_spaces(end);
      if (next == text_.size() || begins_flag(next)) return next;
    }
    size_t flags = begin;
    while (flags < text_.size() && !begins_flag(flags)) flags = skip_spaces(word_end(flags));
    size_t end = flags;
    while (end > begin && is_space(text_[end - 1])) --end;
    prompt = text_.substr(begin, end - begin);
    return flags;
  }

  // Reads the flag at `begin` and returns the end of its value.
  size_t read_flag(size_t begin, PromptOverrides& overrides) const {
    const size_t space = word_end(begin);
    const std::string_view word = text_.substr(begin, space - begin);
    const bool is_long = word.starts_with("--");
    if (!word.starts_with('-') || !has_letter_at(begin + (is_long ? 2 : 1))) {
      fail(begin,
           fmt::format("unexpected '{}' among the flags; a value of several words goes in quotes", excerpt(word)));
    }
    const std::string_view name = word.substr(0, is_long ? word.find('=') : std::string_view::npos);
    const KeySpec* key = keys_.find_alias(name);
    if (!key) fail(begin, unknown_flag_message(name));
    const std::string flag(name);
    if (key->name == "prompt") fail(begin, flag + ": the line itself is the prompt");
    std::string value;
    size_t end = begin + name.size();
    if (end < space) {
      end = read_value(end + 1, value);
    } else if (key->type == config::KeyType::kBoolean) {
      value = "true";
    } else {
      const size_t next = skip_spaces(end);
      if (next == text_.size() || begins_flag(next)) fail(begin, flag + " needs a value");
      end = read_value(next, value);
    }
    add(*key, flag, value, place(begin), overrides);
    return end;
  }

  void add(const KeySpec& key, const std::string& flag, const std::string& value, const std::string& where,
           PromptOverrides& overrides) const {
    check_per_job(key, flag, where);
    ConfigNode node;
    try {
      node = keys_.parse_value(key, value, flag);
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("{}: {}", where, error.what()));
    }
    overrides.add(key, placed(node, where, flag), flag);
  }

  // Quoted and bare pieces up to the next space.
  size_t read_value(size_t begin, std::string& value) const {
    size_t i = begin;
    while (i < text_.size() && !is_space(text_[i])) {
      if (text_[i] != '"' && text_[i] != '\'') {
        value += text_[i++];
        continue;
      }
      const size_t end = read_quoted(text_, i, value);
      if (end == std::string_view::npos) fail(i, "the quote is not closed");
      i = end;
    }
    return i;
  }

  std::string unknown_flag_message(std::string_view name) const {
    std::vector<std::string> flags, first_flags;
    for (const KeySpec& key : keys_.keys()) {
      if (!key.is_per_job || key.name == "prompt") continue;
      for (const std::string& flag : config::flag_names(key)) {
        if (flag.starts_with("--")) flags.push_back(flag.substr(2));
      }
      if (const std::string flag = config::long_flag(key); !flag.empty()) first_flags.push_back(flag);
    }
    const std::string shown = excerpt(name, kMaxNameBytes);
    std::string bare = shown.substr(shown.starts_with("--") ? 2 : 1);
    std::replace(bare.begin(), bare.end(), '_', '-');
    const std::string best = shown.starts_with("--") ? nearest_name(bare, flags) : "";
    if (!best.empty()) return fmt::format("unknown flag {}; did you mean --{}?", shown, best);
    return fmt::format("unknown flag {}; known: {}; a prompt with such a word goes in double quotes", shown,
                       fmt::join(first_flags, ", "));
  }

  std::string_view text_;
  std::string place_;
  const KeyTable& keys_;
};

}  // namespace

void read_text_line(const TextLine& line, const KeyTable& keys, PromptLine& out) { LineReader(line, keys).read(out); }

}  // namespace strobe::pipelines
