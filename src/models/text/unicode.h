// Code points: UTF-8 in and out, normalisation, white space, grapheme clusters.
//
// Contract  Nothing here fails on any input: bytes that are no UTF-8 become U+FFFD, one for each maximal wrong part.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::models::text {

constexpr char32_t kReplacement = 0xFFFD;

std::u32string decode_utf8(std::string_view bytes);
// False and `out` untouched behind the first wrong byte if the bytes are no UTF-8.
bool decode_utf8_strict(std::string_view bytes, std::u32string& out);
void append_utf8(std::string& out, char32_t code);
std::string encode_utf8(std::u32string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::u32string normalize(std::u32string_view text, NormalForm form);

// The White_Space property.
bool is_white_space(char32_t code);
// What Python's str.strip and \s take for space: White_Space and the four information separators.
bool is_python_space(char32_t code);
bool is_decimal_digit(char32_t code);
bool is_word_character(char32_t code);  // letters, marks, digits, connectors
bool is_python_word(char32_t code);     // what Python's \w takes: letters, numbers, underscore
char32_t to_lower(char32_t code);

// End index of each extended grapheme cluster.
std::vector<size_t> grapheme_ends(std::u32string_view text);

}  // namespace strobe::models::text
