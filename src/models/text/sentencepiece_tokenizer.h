// Tokenizers of T5 and UMT5: unigram pieces over words that begin with U+2581.
//
// Source   transformers T5TokenizerFast on the same folder: ids are equal to its. `tokenizer.json` is followed as it
//          stands; a folder with `spiece.model` alone is read as that class converts it (with `extra_ids` of
//          tokenizer_config.json, 100 if absent).
// Steps    special tokens are cut out of the text (leftmost, then longest), each piece between is normalised, its
//          spaces replaced by U+2581, prefixed with one, split before each U+2581 and cut into pieces; the end token
//          follows.
// Errors   IoError for unreadable files; ConfigError naming file and key for broken or unsupported ones.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/text_encoder.h"

namespace strobe::models {

std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& folder);

// The same from the bytes of either file; `origin` is its name for messages.
std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view bytes, const std::string& origin);
std::unique_ptr<Tokenizer> parse_tokenizer_spiece(std::string_view bytes, const std::string& origin,
                                                  int64_t num_extra_ids);

// Writes a tokenizer made by hand: ids 0 <pad>, 1 </s>, 2 <unk>, then one piece for each word (printable, without
// spaces), a comma, the bare word start, small letters, digits and .-'!? for everything else. tokenizer.json and
// spiece.model give the same ids. ConfigError for a word that is empty, repeated or has a space in it; IoError if a
// file cannot be written.
void write_word_tokenizer(const std::filesystem::path& folder, const std::vector<std::string>& words);

}  // namespace strobe::models
