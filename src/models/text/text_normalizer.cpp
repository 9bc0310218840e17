#include "models/text/text_normalizer.h"

#include <fmt/format.h>

#include <algorithm>

#include <optional>
#include <utility>

#include "core/error.h"
#include "core/text_file.h"
#include "models/text/unicode.h"

namespace strobe::models::text {
namespace {

std::optional<std::string> decode_base64(std::string_view text) {
  std::string out;
  uint32_t bits = 0;
  int num_bits = 0;
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  for (const char c : text) {
    uint32_t value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = static_cast<uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = static_cast<uint32_t>(c - 'a' + 26);
    } else if (c >= '0' && c <= '9') {
      value = static_cast<uint32_t>(c - '0' + 52);
    } else if (c == '+') {
      value = 62;
    } else if (c == '/') {
      value = 63;
    } else {
      return std::nullopt;
    }
    bits = (bits << 6) | value;
    num_bits += 6;
    if (num_bits >= 8) {
      num_bits -= 8;
      out.push_back(static_cast<char>((bits >> num_bits) & 0xFF));
    }
  }
  return out;
}

// A file's steps may each make a text longer; a few in a row would fill the memory.
void append(std::u32string& out, std::u32string_view piece) {
  constexpr size_t kMaxCharacters = size_t{1} << 22;
  if (piece.size() > kMaxCharacters - std::min(out.size(), kMaxCharacters)) {
    throw ConfigError(fmt::format("the tokenizer's normaliser makes a text longer than {} characters", kMaxCharacters));
  }
  out += piece;
}

// Blob: uint32 bytes of the trie, the trie's 32-bit units, then the replacements, each ended by a zero byte. All
// little-endian. A unit holds a label (low byte), whether a value follows (bit 8), and an offset (bits 10.., times 256
// if bit 9 is set) which is xor-ed to the position; a value unit has its top bit set.
class CharacterMap final : public NormalizerStep {
 public:
  CharacterMap(const std::string& blob, const std::string& origin) {
    const auto word = [&](size_t at) {
      uint32_t value = 0;
      for (size_t i = 0; i < 4; ++i) value |= static_cast<uint32_t>(static_cast<uint8_t>(blob[at + i])) << (8 * i);
      return value;
    };
    const size_t trie_size = blob.size() < 4 ? 0 : word(0);
    if (trie_size == 0 || trie_size % 4 != 0 || trie_size > blob.size() - 4)
      throw ConfigError(
          fmt::format("{}: precompiled_charsmap: its header does not fit its {} bytes", origin, blob.size()));
    units_.reserve(trie_size / 4);
    for (size_t at = 4; at < 4 + trie_size; at += 4) units_.push_back(word(at));
    replacements_ = blob.substr(4 + trie_size);
  }

  std::u32string apply(const std::u32string& text) const override {
    std::u32string out;
    size_t begin = 0;
    for (const size_t end : grapheme_ends(text)) {
      const std::u32string_view cluster(text.data() + begin, end - begin);
      begin = end;
      const std::string bytes = encode_utf8(cluster);
      if (bytes.size() < kMaxClusterBytes) {
        if (const auto found = find(bytes)) {
          append(out, decode_utf8(*found));
          continue;
        }
      }
      for (const char32_t code : cluster) {
        if (const auto found = find(encode_utf8(std::u32string_view(&code, 1)))) {
          append(out, decode_utf8(*found));
        } else {
          out.push_back(code);
        }
      }
    }
    return out;
  }

 private:
  static constexpr size_t kMaxClusterBytes = 6;

  static size_t offset(uint32_t unit) { return static_cast<size_t>(unit >> 10) << ((unit & (1U << 9)) >> 6); }

  // The replacement of the shortest prefix that has one. Positions outside the trie end the search: a hostile map.
  std::optional<std::string_view> find(std::string_view key) const {
    size_t at = offset(units_[0]);
    for (const char c : key) {
      const auto label = static_cast<uint8_t>(c);
      if (label == 0) return std::nullopt;
      at ^= label;
      if (at >= units_.size()) return std::nullopt;
      const uint32_t unit = units_[at];
      if ((unit & 0x800000FFU) != label) return std::nullopt;
      at ^= offset(unit);
      if ((unit >> 8) & 1U) {
        if (at >= units_.size()) return std::nullopt;
        const size_t begin = units_[at] & 0x7FFFFFFFU;
        if (begin > replacements_.size()) return std::nullopt;
        const size_t end = std::min(replacements_.find('\0', begin), replacements_.size());
        return std::string_view(replacements_).substr(begin, end - begin);
      }
    }
    return std::nullopt;
  }

  std::vector<uint32_t> units_;
  std::string replacements_;
};

class Strip final : public NormalizerStep {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  std::u32string apply(const std::u32string& text) const override {
    size_t begin = 0;
    size_t end = text.size();
    while (right_ && end > begin && is_white_space(text[end - 1])) --end;
    while (left_ && begin < end && is_white_space(text[begin])) ++begin;
    return text.substr(begin, end - begin);
  }

 private:
  bool left_;
  bool right_;
};

// Runs of at least `min_repeats` x `pattern`; a literal replaces every single occurrence.
class Replace final : public NormalizerStep {
 public:
  Replace(std::u32string pattern, std::u32string content, bool is_run)
      : pattern_(std::move(pattern)), content_(std::move(content)), is_run_(is_run) {}
  std::u32string apply(const std::u32string& text) const override {
    std::u32string out;
    for (size_t i = 0; i < text.size();) {
      if (text.compare(i, pattern_.size(), pattern_) != 0) {
        out.push_back(text[i++]);
        continue;
      }
      i += pattern_.size();
      while (is_run_ && i < text.size() && text[i] == pattern_.back()) ++i;
      append(out, content_);
    }
    return out;
  }

 private:
  std::u32string pattern_;
  std::u32string content_;
  bool is_run_;
};

class Form final : public NormalizerStep {
 public:
  explicit Form(NormalForm form) : form_(form) {}
  std::u32string apply(const std::u32string& text) const override { return normalize(text, form_); }

 private:
  NormalForm form_;
};

class Lowercase final : public NormalizerStep {
 public:
  std::u32string apply(const std::u32string& text) const override {
    std::u32string out = text;
    for (char32_t& code : out) code = to_lower(code);
    return out;
  }
};

class Prepend final : public NormalizerStep {
 public:
  explicit Prepend(std::u32string prefix) : prefix_(std::move(prefix)) {}
  std::u32string apply(const std::u32string& text) const override { return text.empty() ? text : prefix_ + text; }

 private:
  std::u32string prefix_;
};

std::unique_ptr<const NormalizerStep> make_replace(const ConfigNode& node) {
  const std::u32string content = decode_utf8(node.at("content").as_string());
  const ConfigNode& pattern = node.at("pattern");
  if (const ConfigNode* literal = pattern.find("String")) {
    if (literal->as_string().empty()) literal->fail("expected a text to replace, got an empty one");
    return std::make_unique<Replace>(decode_utf8(literal->as_string()), content, /*is_run=*/false);
  }
  const ConfigNode& expression = pattern.at("Regex");
  if (expression.as_string() != " {2,}")
    expression.fail(
        fmt::format("only the expression \" {{2,}}\" is supported, got \"{}\"", excerpt(expression.as_string())));
  return std::make_unique<Replace>(U"  ", content, /*is_run=*/true);
}

void add_steps(const ConfigNode& node, Normalizer& steps) {
  if (node.is_null()) return;
  const std::string& type = node.at("type").as_string();
  if (type == "Sequence") {
    for (const ConfigNode& child : node.at("normalizers").as_list()) add_steps(child, steps);
  } else if (type == "Precompiled") {
    const ConfigNode& map = node.at("precompiled_charsmap");
    if (map.is_null() || map.as_string().empty()) return;
    const auto blob = decode_base64(map.as_string());
    if (!blob) map.fail("is no base64 text");
    steps.push_back(std::make_unique<CharacterMap>(*blob, map.origin()));
  } else if (type == "Strip") {
    steps.push_back(std::make_unique<Strip>(node.at("strip_left").as_bool(), node.at("strip_right").as_bool()));
  } else if (type == "Replace") {
    steps.push_back(make_replace(node));
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    const bool is_composed = type.back() == 'C';
    const bool is_compatible = type.size() == 4;
    steps.push_back(std::make_unique<Form>(is_compatible ? (is_composed ? NormalForm::kNfkc : NormalForm::kNfkd)
                                                         : (is_composed ? NormalForm::kNfc : NormalForm::kNfd)));
  } else if (type == "Lowercase") {
    steps.push_back(std::make_unique<Lowercase>());
  } else if (type == "Prepend") {
    steps.push_back(std::make_unique<Prepend>(decode_utf8(node.at("prepend").as_string())));
  } else {
    node.at("type").fail(
        fmt::format("normaliser \"{}\" is not supported (Precompiled, Strip, Replace, NFC, NFD, NFKC, "
                    "NFKD, Lowercase, Prepend, Sequence)",
                    excerpt(type)));
  }
}

}  // namespace

Normalizer make_normalizer(const ConfigNode& node) {
  Normalizer steps;
  add_steps(node, steps);
  return steps;
}

Normalizer make_spiece_normalizer(const std::string& character_map, const std::string& origin) {
  Normalizer steps;
  if (!character_map.empty()) steps.push_back(std::make_unique<CharacterMap>(character_map, origin));
  steps.push_back(std::make_unique<Strip>(/*left=*/false, /*right=*/true));
  steps.push_back(std::make_unique<Replace>(U"  ", U"\u2581", /*is_run=*/true));
  return steps;
}

std::u32string apply(const Normalizer& normalizer, std::u32string text) {
  for (const auto& step : normalizer) text = step->apply(text);
  return text;
}

}  // namespace strobe::models::text
