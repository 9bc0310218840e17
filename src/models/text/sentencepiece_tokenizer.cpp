#include "models/text/sentencepiece_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "core/config_node.h"
#include "core/error.h"
#include "core/text_file.h"
#include "models/text/special_tokens.h"
#include "models/text/spiece_model.h"
#include "models/text/text_normalizer.h"
#include "models/text/unicode.h"
#include "models/text/unigram.h"
#include "weights/json.h"

namespace strobe::models {
namespace {

using text::SpecialToken;

constexpr uintmax_t kMaxModelBytes = uintmax_t{64} << 20;
constexpr size_t kMaxTemplateIds = 16;  // they take room from the text

enum class Prefix { kAlways, kFirst, kNever };

// How normalised text becomes words.
struct WordRules {
  char32_t mark = 0x2581;
  Prefix prefix = Prefix::kAlways;
  bool splits_at_mark = true;
  bool splits_at_space = false;  // first at white space, which is dropped
};

struct Parts {
  std::vector<std::pair<std::string, double>> pieces;
  text::UnigramOptions unigram;
  text::Normalizer normalizer;
  WordRules words;
  std::vector<SpecialToken> special_tokens;
  std::vector<int32_t> before;  // ids of the template around the text
  std::vector<int32_t> after;
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(Parts parts)
      : unigram_(std::move(parts.pieces), parts.unigram),
        normalizer_(std::move(parts.normalizer)),
        words_(parts.words),
        before_(std::move(parts.before)),
        after_(std::move(parts.after)) {
    std::vector<SpecialToken> normalized;
    std::vector<SpecialToken> raw;
    for (SpecialToken& token : parts.special_tokens) {
      if (token.is_normalized) token.text = text::apply(normalizer_, token.text);
      if (!token.text.empty()) (token.is_normalized ? normalized : raw).push_back(std::move(token));
    }
    raw_tokens_ = text::SpecialTokens(std::move(raw));
    normalized_tokens_ = text::SpecialTokens(std::move(normalized));
  }

  std::vector<int32_t> encode(const std::string& utf8, int64_t max_tokens) const override {
    const size_t around = before_.size() + after_.size();
    STROBE_CHECK(max_tokens >= static_cast<int64_t>(std::max<size_t>(around, 1)),
                 "tokenizer: max_tokens: expected at least {}, got {}", std::max<size_t>(around, 1), max_tokens);
    std::vector<int32_t> ids = before_;
    const size_t most = static_cast<size_t>(max_tokens) - after_.size();
    for (const text::Segment& raw : raw_tokens_.split(text::decode_utf8(utf8))) {
      if (raw.id >= 0) {
        ids.push_back(raw.id);
        continue;
      }
      // Cutting inside a segment would change nothing but the time: ids beyond the limit are dropped below.
      const bool is_first = raw.begin == 0;
      for (const text::Segment& part : normalized_tokens_.split(text::apply(normalizer_, raw.text))) {
        if (part.id >= 0) {
          ids.push_back(part.id);
        } else {
          append_words(part.text, is_first && part.begin == 0, ids);
        }
      }
      if (ids.size() >= most) break;
    }
    if (ids.size() > most) ids.resize(most);
    ids.insert(ids.end(), after_.begin(), after_.end());
    return ids;
  }

 private:
  void append_words(const std::u32string& segment, bool is_first, std::vector<int32_t>& ids) const {
    if (!words_.splits_at_space) {
      append_marked(segment, is_first, ids);
      return;
    }
    for (size_t begin = 0; begin < segment.size();) {
      size_t end = begin;
      while (end < segment.size() && !text::is_white_space(segment[end])) ++end;
      append_marked(segment.substr(begin, end - begin), is_first && begin == 0, ids);
      begin = end + 1;
    }
  }

  void append_marked(std::u32string segment, bool is_first, std::vector<int32_t>& ids) const {
    if (segment.empty()) return;
    std::replace(segment.begin(), segment.end(), U' ', words_.mark);
    const bool wants_mark = words_.prefix == Prefix::kAlways || (words_.prefix == Prefix::kFirst && is_first);
    if (wants_mark && segment.front() != words_.mark) segment.insert(segment.begin(), words_.mark);
    size_t begin = 0;
    while (begin < segment.size()) {
      const size_t next = words_.splits_at_mark ? segment.find(words_.mark, begin + 1) : std::u32string::npos;
      const size_t end = std::min(next, segment.size());
      unigram_.encode(text::encode_utf8(std::u32string_view(segment).substr(begin, end - begin)), ids);
      begin = end;
    }
  }

  text::Unigram unigram_;
  text::Normalizer normalizer_;
  WordRules words_;
  std::vector<int32_t> before_;
  std::vector<int32_t> after_;
  text::SpecialTokens raw_tokens_;
  text::SpecialTokens normalized_tokens_;
};

int32_t read_id(const ConfigNode& node) {
  const int64_t id = node.as_integer();
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) node.fail(fmt::format("expected an id, got {}", id));
  return static_cast<int32_t>(id);
}

void read_pieces(const ConfigNode& model, Parts& parts) {
  const std::string type = model.get_string("type", "Unigram");
  if (type != "Unigram")
    model.at("type").fail(fmt::format("only Unigram models are supported, got \"{}\"", excerpt(type)));
  const ConfigNode& vocab = model.at("vocab");
  parts.pieces.reserve(vocab.as_list().size());
  for (const ConfigNode& entry : vocab.as_list()) {
    const ConfigNode::List& pair = entry.as_list();
    if (pair.size() != 2) entry.fail("expected a piece and its score");
    parts.pieces.emplace_back(pair[0].as_string(), pair[1].as_number());
  }
  parts.unigram.unknown_id = read_id(model.at("unk_id"));
  if (static_cast<size_t>(parts.unigram.unknown_id) >= parts.pieces.size())
    model.at("unk_id").fail(fmt::format("expected one of {} pieces", parts.pieces.size()));
  parts.unigram.has_byte_fallback = model.get_bool("byte_fallback", false);
}

void read_metaspace(const ConfigNode& node, WordRules& rules) {
  const std::u32string mark = text::decode_utf8(node.get_string("replacement", "\u2581"));
  if (mark.size() != 1) node.at("replacement").fail("expected one character");
  rules.mark = mark[0];
  const std::string scheme =
      node.get_string("prepend_scheme", node.get_bool("add_prefix_space", true) ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    node.at("prepend_scheme")
        .fail(fmt::format("expected \"always\", \"first\" or \"never\", got \"{}\"", excerpt(scheme)));
  rules.prefix = scheme == "always" ? Prefix::kAlways : scheme == "first" ? Prefix::kFirst : Prefix::kNever;
  rules.splits_at_mark = node.get_bool("split", true);
}

WordRules read_words(const ConfigNode& node) {
  WordRules rules;
  const auto read = [&](const ConfigNode& step) {
    const std::string& type = step.at("type").as_string();
    if (type == "Metaspace") {
      read_metaspace(step, rules);
    } else if (type == "WhitespaceSplit") {
      rules.splits_at_space = true;
    } else {
      step.at("type").fail(
          fmt::format("pre-tokenizer \"{}\" is not supported (Metaspace, WhitespaceSplit)", excerpt(type)));
    }
  };
  if (node.at("type").as_string() == "Sequence") {
    for (const ConfigNode& step : node.at("pretokenizers").as_list()) read(step);
  } else {
    read(node);
  }
  return rules;
}

// The single-text template: ids before and after the text.
void read_template(const ConfigNode& node, Parts& parts) {
  if (node.is_null()) node.fail("expected a TemplateProcessing that appends the end token, got null");
  if (node.at("type").as_string() != "TemplateProcessing")
    node.at("type").fail(
        fmt::format("only TemplateProcessing is supported, got \"{}\"", excerpt(node.at("type").as_string())));
  bool is_after = false;
  for (const ConfigNode& item : node.at("single").as_list()) {
    if (item.find("Sequence") != nullptr) {
      is_after = true;
      continue;
    }
    const std::string& name = item.at("SpecialToken").at("id").as_string();
    for (const ConfigNode& id : node.at("special_tokens").at(name).at("ids").as_list())
      (is_after ? parts.after : parts.before).push_back(read_id(id));
  }
  const size_t count = parts.before.size() + parts.after.size();
  if (count > kMaxTemplateIds)
    node.fail(fmt::format("expected at most {} ids around the text, got {}", kMaxTemplateIds, count));
}

std::vector<SpecialToken> read_special_tokens(const ConfigNode* node) {
  std::vector<SpecialToken> tokens;
  if (node == nullptr || node->is_null()) return tokens;
  for (const ConfigNode& entry : node->as_list()) {
    SpecialToken token;
    token.text = text::decode_utf8(entry.at("content").as_string());
    token.id = read_id(entry.at("id"));
    token.strips_left = entry.get_bool("lstrip", false);
    token.strips_right = entry.get_bool("rstrip", false);
    token.is_single_word = entry.get_bool("single_word", false);
    token.is_normalized = entry.get_bool("normalized", false);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

const ConfigNode& optional_node(const ConfigNode& node, std::string_view key) {
  static const ConfigNode null;
  const ConfigNode* found = node.find(key);
  return found == nullptr ? null : *found;
}

Parts read_tokenizer_json(const ConfigNode& root) {
  Parts parts;
  read_pieces(root.at("model"), parts);
  parts.normalizer = text::make_normalizer(optional_node(root, "normalizer"));
  parts.words = read_words(root.at("pre_tokenizer"));
  read_template(root.at("post_processor"), parts);
  parts.special_tokens = read_special_tokens(root.find("added_tokens"));
  return parts;
}

int64_t read_extra_ids(const std::filesystem::path& folder) {
  constexpr int64_t kDefault = 100;
  constexpr int64_t kMost = 100000;
  const std::filesystem::path path = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) return kDefault;
  const ConfigNode config = weights::load_json(path);
  const int64_t count = config.get_integer("extra_ids", kDefault);
  if (count < 0 || count > kMost) config.at("extra_ids").fail(fmt::format("expected at most {}, got {}", kMost, count));
  return count;
}

Parts read_spiece(std::string_view bytes, const std::string& origin, int64_t num_extra_ids) {
  const text::SpieceModel model = text::parse_spiece(bytes, origin);
  Parts parts;
  const auto add_special = [&](const std::string& name, size_t id) {
    SpecialToken token;
    token.text = text::decode_utf8(name);
    token.id = static_cast<int32_t>(id);
    parts.special_tokens.push_back(std::move(token));
  };
  for (const text::SpiecePiece& piece : model.pieces) {
    const bool is_named = piece.text == "</s>" || piece.text == "<pad>" || piece.type == text::PieceType::kUnknown;
    if (is_named || piece.type == text::PieceType::kControl || piece.type == text::PieceType::kUserDefined)
      add_special(piece.text, parts.pieces.size());
    if (piece.text == "</s>") parts.after = {static_cast<int32_t>(parts.pieces.size())};
    parts.pieces.emplace_back(piece.text, static_cast<double>(piece.score));
  }
  if (parts.after.empty()) throw ConfigError(fmt::format("{}: has no end token </s>", origin));
  for (int64_t i = num_extra_ids - 1; i >= 0; --i) {
    const std::string name = fmt::format("<extra_id_{}>", i);
    add_special(name, parts.pieces.size());
    parts.pieces.emplace_back(name, 0.0);
  }
  parts.unigram.unknown_id = model.unknown_id;
  parts.normalizer = text::make_spiece_normalizer(model.character_map, origin);
  return parts;
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view bytes, const std::string& origin) {
  return std::make_unique<SentencePieceTokenizer>(read_tokenizer_json(weights::parse_json(bytes, origin)));
}

std::unique_ptr<Tokenizer> parse_tokenizer_spiece(std::string_view bytes, const std::string& origin,
                                                  int64_t num_extra_ids) {
  return std::make_unique<SentencePieceTokenizer>(read_spiece(bytes, origin, num_extra_ids));
}

std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& folder) {
  const std::filesystem::path json = folder / "tokenizer.json";
  if (std::filesystem::exists(json)) {
    return std::make_unique<SentencePieceTokenizer>(read_tokenizer_json(weights::load_json(json)));
  }
  const std::filesystem::path spiece = folder / "spiece.model";
  if (std::filesystem::exists(spiece))
    return parse_tokenizer_spiece(read_whole_file(spiece, kMaxModelBytes), spiece.string(), read_extra_ids(folder));
  throw IoError(fmt::format("{}: has neither tokenizer.json nor spiece.model", folder.string()));
}

}  // namespace strobe::models
