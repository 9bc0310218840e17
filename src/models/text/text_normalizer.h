// The normaliser of a tokenizer.json: a sequence of small steps over code points.
//
// Steps    Precompiled (SentencePiece's character map: a double-array trie over UTF-8 and the replacements behind it),
//          Strip, Replace (a literal or the expression " {2,}"), NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Sequence.
// Differs  from SentencePiece, like the Hugging Face library that made the reference ids: the map is asked for whole
//          grapheme clusters of fewer than 6 bytes, then for single characters, and the shortest match counts.
// Errors   ConfigError naming the file for other steps and for maps that are no such trie; ConfigError for steps that make
//          a text grow beyond 4 million characters.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/config_node.h"

namespace strobe::models::text {

class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  virtual std::u32string apply(const std::u32string& text) const = 0;
};

using Normalizer = std::vector<std::unique_ptr<const NormalizerStep>>;

// `node` is the value of "normalizer", which may be null.
Normalizer make_normalizer(const ConfigNode& node);

// The steps that a spiece.model stands for; an empty map adds none. `origin` is for messages.
Normalizer make_spiece_normalizer(const std::string& character_map, const std::string& origin);

std::u32string apply(const Normalizer& normalizer, std::u32string text);

}  // namespace strobe::models::text
