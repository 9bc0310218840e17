#include <fmt/format.h>

#include <set>

#include "core/config_node.h"
#include "core/error.h"
#include "core/output_file.h"
#include "models/text/sentencepiece_tokenizer.h"
#include "models/text/spiece_model.h"
#include "models/text/unicode.h"
#include "weights/json.h"

namespace strobe::models {
namespace {

using text::PieceType;

constexpr float kWordScore = -1;
constexpr float kMarkScore = -3;
constexpr float kLetterScore = -8;
constexpr const char* kMark = "\u2581";

text::SpieceModel make_model(const std::vector<std::string>& words) {
  text::SpieceModel model;
  model.pieces = {
      {"<pad>", 0, PieceType::kControl}, {"</s>", 0, PieceType::kControl}, {"<unk>", 0, PieceType::kUnknown}};
  model.unknown_id = 2;
  std::set<std::string> seen;
  for (const std::string& word : words) {
    std::u32string codes;
    const bool is_text = text::decode_utf8_strict(word, codes) && !codes.empty();
    bool has_space = false;
    for (const char32_t code : codes)
      has_space = has_space || code < 0x20 || code == 0x2581 || text::is_python_space(code);
    if (!is_text || has_space || !seen.insert(word).second)
      throw ConfigError(fmt::format("word tokenizer: \"{}\" is empty, repeated or has a space in it", word));
    model.pieces.push_back({kMark + word, kWordScore, PieceType::kNormal});
  }
  model.pieces.push_back({",", kMarkScore, PieceType::kNormal});
  model.pieces.push_back({kMark, kMarkScore, PieceType::kNormal});
  for (const char c : std::string_view("abcdefghijklmnopqrstuvwxyz0123456789.-'!?"))
    model.pieces.push_back({std::string(1, c), kLetterScore, PieceType::kNormal});
  return model;
}

ConfigNode text_node(const std::string& value) { return ConfigNode::string(value); }

ConfigNode special_token(const char* name, int64_t id) {
  return ConfigNode::map({{"id", ConfigNode::integer(id)},
                          {"content", text_node(name)},
                          {"single_word", ConfigNode::boolean(false)},
                          {"lstrip", ConfigNode::boolean(false)},
                          {"rstrip", ConfigNode::boolean(false)},
                          {"normalized", ConfigNode::boolean(false)},
                          {"special", ConfigNode::boolean(true)}});
}

ConfigNode metaspace() {
  return ConfigNode::map({{"type", text_node("Metaspace")},
                          {"replacement", text_node(kMark)},
                          {"prepend_scheme", text_node("always")},
                          {"split", ConfigNode::boolean(true)}});
}

ConfigNode template_item(const char* kind, const char* id) {
  return ConfigNode::map(
      {{kind, ConfigNode::map({{"id", text_node(id)}, {"type_id", ConfigNode::integer(id[0] == 'B' ? 1 : 0)}})}});
}

ConfigNode post_processor() {
  const ConfigNode end = template_item("SpecialToken", "</s>");
  const ConfigNode first = template_item("Sequence", "A");
  const ConfigNode token = ConfigNode::map({{"id", text_node("</s>")},
                                            {"ids", ConfigNode::list({ConfigNode::integer(1)})},
                                            {"tokens", ConfigNode::list({text_node("</s>")})}});
  return ConfigNode::map({{"type", text_node("TemplateProcessing")},
                          {"single", ConfigNode::list({first, end})},
                          {"pair", ConfigNode::list({first, end, template_item("Sequence", "B"), end})},
                          {"special_tokens", ConfigNode::map({{"</s>", token}})}});
}

// The steps that T5TokenizerFast makes of a spiece.model without a character map.
ConfigNode normalizer() {
  const ConfigNode strip = ConfigNode::map({{"type", text_node("Strip")},
                                            {"strip_left", ConfigNode::boolean(false)},
                                            {"strip_right", ConfigNode::boolean(true)}});
  const ConfigNode replace = ConfigNode::map({{"type", text_node("Replace")},
                                              {"pattern", ConfigNode::map({{"Regex", text_node(" {2,}")}})},
                                              {"content", text_node(kMark)}});
  return ConfigNode::map({{"type", text_node("Sequence")}, {"normalizers", ConfigNode::list({strip, replace})}});
}

ConfigNode tokenizer_json(const text::SpieceModel& model) {
  ConfigNode::List vocab;
  for (const text::SpiecePiece& piece : model.pieces)
    vocab.push_back(ConfigNode::list({text_node(piece.text), ConfigNode::number(static_cast<double>(piece.score))}));
  ConfigNode unigram = ConfigNode::map({{"type", text_node("Unigram")},
                                        {"unk_id", ConfigNode::integer(model.unknown_id)},
                                        {"vocab", ConfigNode::list(std::move(vocab))},
                                        {"byte_fallback", ConfigNode::boolean(false)}});
  return ConfigNode::map({{"version", text_node("1.0")},
                          {"truncation", ConfigNode::null()},
                          {"padding", ConfigNode::null()},
                          {"added_tokens", ConfigNode::list({special_token("<pad>", 0), special_token("</s>", 1),
                                                             special_token("<unk>", 2)})},
                          {"normalizer", normalizer()},
                          {"pre_tokenizer", metaspace()},
                          {"post_processor", post_processor()},
                          {"decoder", metaspace()},
                          {"model", std::move(unigram)}});
}

ConfigNode special_tokens_map() {
  return ConfigNode::map(
      {{"eos_token", text_node("</s>")}, {"pad_token", text_node("<pad>")}, {"unk_token", text_node("<unk>")}});
}

ConfigNode tokenizer_config() {
  ConfigNode config = special_tokens_map();
  config.set("tokenizer_class", text_node("T5Tokenizer"));
  config.set("extra_ids", ConfigNode::integer(0));
  config.set("additional_special_tokens", ConfigNode::list());
  config.set("clean_up_tokenization_spaces", ConfigNode::boolean(false));
  config.set("legacy", ConfigNode::boolean(true));
  config.set("model_max_length", ConfigNode::integer(512));
  return config;
}

}  // namespace

void write_word_tokenizer(const std::filesystem::path& folder, const std::vector<std::string>& words) {
  const text::SpieceModel model = make_model(words);
  make_folders(folder);
  write_file(folder / "spiece.model", text::serialize_spiece(model));
  write_file(folder / "tokenizer.json", weights::to_json(tokenizer_json(model)) + "\n");
  write_file(folder / "tokenizer_config.json", weights::to_json(tokenizer_config()) + "\n");
  write_file(folder / "special_tokens_map.json", weights::to_json(special_tokens_map()) + "\n");
}

}  // namespace strobe::models
