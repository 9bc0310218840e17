// Special tokens written in a text: finds them and cuts the text around them.
//
// Contract  Leftmost match, the longest of those that begin there. Matches do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace strobe::models::text {

struct SpecialToken {
  std::u32string text;
  int32_t id = 0;
  bool strips_left = false;     // takes white space before it along
  bool strips_right = false;    // and behind it
  bool is_single_word = false;  // only between characters that are no letters
  bool is_normalized = false;   // looked for in the normalised text
};

struct Segment {
  std::u32string text;
  int32_t id = -1;   // -1: text between tokens
  size_t begin = 0;  // where it stands in the text that was split
};

class SpecialTokens {
 public:
  SpecialTokens() = default;
  explicit SpecialTokens(std::vector<SpecialToken> tokens);

  // In order, without empty segments.
  std::vector<Segment> split(const std::u32string& text) const;

 private:
  const SpecialToken* match(const std::u32string& text, size_t begin) const;

  std::vector<SpecialToken> tokens_;
  std::unordered_map<char32_t, std::vector<size_t>> by_first_;  // longest first
};

}  // namespace strobe::models::text
