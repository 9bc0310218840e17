#include "models/text/mojibake_rules.h"

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "models/text/unicode.h"

namespace strobe::models::text {
namespace {

enum Class : uint32_t {
  kCommon = 1U << 0,
  kC1 = 1U << 1,
  kBad = 1U << 2,
  kLaw = 1U << 3,
  kCurrency = 1U << 4,
  kStart = 1U << 5,  // punctuation before a word
  kEnd = 1U << 6,    // and behind one
  kNumeric = 1U << 7,
  kKaomoji = 1U << 8,  // letters that faces are made of
  kUpper = 1U << 9,    // accented
  kLower = 1U << 10,
  kUpperCommon = 1U << 11,  // Greek and Cyrillic
  kLowerCommon = 1U << 12,
  kBox = 1U << 13,
  kAsciiUpper = 1U << 14,
  kAsciiLower = 1U << 15,
  kSpace = 1U << 16,
  kWord = 1U << 17,
  kNotAsciiLetter = 1U << 18,
  kNotNewline = 1U << 19,
};
constexpr uint32_t kAsciiLetter = kAsciiUpper | kAsciiLower;
constexpr uint32_t kPunctuation = kStart | kEnd;
constexpr uint32_t kOdd = kLower | kUpper | kBox | kPunctuation | kCurrency | kNumeric | kLaw;
constexpr uint32_t kArabicTail = kCommon | kCurrency | kBad | kNumeric | kStart;
constexpr uint32_t kBetween = kC1 | kBad | kPunctuation | kCurrency;

struct ClassRange {
  char32_t first;
  char32_t last;
  uint32_t classes;
};
constexpr ClassRange kRanges[] = {
#include "models/text/mojibake_classes.inc"
};

// One character of a rule: of one of the classes or one of the characters.
struct Slot {
  uint32_t classes = 0;
  std::u32string_view characters = {};
};
using Rule = std::vector<Slot>;

constexpr std::u32string_view kArabicMore = U"\u0178\u0160\u00AE\u00B0\u00B5\u00BB";
constexpr std::u32string_view kCyrillicLead = U"\u0412\u0413\u0420\u0421";
constexpr std::u32string_view kGreekLead = U"\u0392\u0393\u039E\u039F";
constexpr std::u32string_view kLatinLead = U"\u00C3\u00C2";

// Pairs and triples by class, whatever the code page.
std::vector<Rule> class_rules() {
  return {
      {{kC1}},
      {{kBad | kOdd}, {kBad}},
      {{kAsciiLetter}, {kLowerCommon | kUpperCommon}, {kBad}},
      {{kBad}, {kOdd}},
      {{kLower | kLowerCommon | kBox | kEnd | kCurrency | kNumeric}, {kUpper}},
      {{kBox | kEnd | kCurrency | kNumeric}, {kLower}},
      {{kLower | kBox | kEnd}, {kCurrency}},
      {{kSpace}, {kUpper}, {kCurrency}},
      {{kUpper | kBox}, {kNumeric | kLaw}},
      {{kLower | kUpper | kBox | kCurrency | kEnd}, {kStart}, {kNumeric}},
      {{kLower | kUpper | kCurrency | kNumeric | kBox | kLaw}, {kEnd}, {kStart}},
      {{kCurrency | kNumeric | kBox}, {kStart}},
      {{kAsciiLower}, {kUpper}, {kStart | kCurrency}},
      {{kBox}, {kKaomoji}},
      {{kLower | kUpper | kCurrency | kNumeric | kPunctuation | kLaw}, {kBox}},
      {{kBox}, {kEnd}},
      {{kLower | kUpper}, {kPunctuation}, {kWord}},
      {{0, U"\u0152\u0153"}, {kNotAsciiLetter}},
      {{kUpper}, {0, U"\u00B0"}},
  };
}

// What UTF-8 becomes in one code page.
std::vector<Rule> page_rules() {
  return {
      // Windows-1252
      {{0, U"\u00C2\u00C3\u00CE\u00D0"},
       {kPunctuation,
        U"\u20AC\u0153\u0160\u0161\u00A2\u00A3\u0178\u017E\u00A0\u00AD\u00AE\u00A9\u00B0\u00B7\u00BB\u2013\u2014"
        U"\u00B4"}},
      {{0, U"\u00D7"}, {0, U"\u00B2\u00B3"}},
      {{0, U"\u00D8\u00D9"}, {kArabicTail, kArabicMore}, {0, U"\u00D8\u00D9"}, {kArabicTail, kArabicMore}},
      {{0, U"\u00E0"}, {0, U"\u00B2\u00B5\u00B9\u00BC\u00BD\u00BE"}},
      {{0, U"\u00C3"}, {0, U"\u00A0\u00A1"}},
      {{kAsciiLower}, {0, kLatinLead}, {0, U" "}},
      {{kAsciiLower}, {kSpace}, {0, kLatinLead}, {0, U" "}},
      {{kAsciiLower | kEnd, U".,?!"}, {0, U"\u00C2"}, {kPunctuation, U" "}},
      // MacRoman
      {{0, U"\u221A"}, {0, U"\u00B1\u2202\u2020\u2260\u00AE\u2122\u00B4\u2264\u2265\u00A5\u00B5\u00F8"}},
      {{0, U"\u2248"}, {0, U"\u00B0\u00A2"}},
      {{0, U"\u201A"},
       {0, U"\u00C4"},
       {0, U"\u00EC\u00EE\u00EF\u00F2\u00F4\u00FA\u00F9\u00FB\u2020\u00B0\u00A2\u03C0"}},
      {{0, U"\u201A"}, {0, U"\u00E2\u00F3"}, {0, U"\u00E0\u00E4\u00B0\u00EA"}},
      // Windows-1251; the last is that of Windows-1252 once more
      {{0, U"\u0432"}, {0, U"\u0402"}},
      {{0, kCyrillicLead}, {kBetween, U"\u00B0\u00B5"}, {0, kCyrillicLead}},
      {{0, U"\u0413"},
       {0, U"\u045E"},
       {0, U"\u0412"},
       {0, U"\u0402"},
       {0, U"\u0412"},
       {kNotNewline},
       {kAsciiLetter, U" "}},
      // Windows-1253
      {{0, U"\u03B2"}, {0, U"\u20AC"}, {0, U"\u2122\u00A0\u0386\u00AD\u00AE\u00B0"}},
      {{0, kGreekLead}, {kBetween, U"\u00B0"}, {0, kGreekLead}},
      // Windows-1257
      {{0, U"\u0101"}, {0, U"\u20AC"}},
  };
}

const std::vector<Rule>& rules() {
  static const std::vector<Rule> all = [] {
    std::vector<Rule> list = class_rules();
    for (Rule& rule : page_rules()) list.push_back(std::move(rule));
    return list;
  }();
  return all;
}

uint32_t classes_of(char32_t code) {
  static const std::unordered_map<char32_t, uint32_t> table = [] {
    std::unordered_map<char32_t, uint32_t> made;
    for (const ClassRange& range : kRanges)
      for (char32_t c = range.first; c <= range.last; ++c) made[c] |= range.classes;
    return made;
  }();
  const auto found = table.find(code);
  uint32_t classes = found == table.end() ? 0 : found->second;
  const bool is_upper = code >= 'A' && code <= 'Z';
  const bool is_lower = code >= 'a' && code <= 'z';
  if (is_upper) classes |= kAsciiUpper;
  if (is_lower) classes |= kAsciiLower;
  if (!is_upper && !is_lower) classes |= kNotAsciiLetter;
  if (is_python_space(code)) classes |= kSpace;
  if (is_python_word(code)) classes |= kWord;
  if (code != '\n') classes |= kNotNewline;
  return classes;
}

}  // namespace

bool looks_like_mojibake(std::u32string_view text) {
  std::vector<uint32_t> classes;
  classes.reserve(text.size());
  for (const char32_t code : text) classes.push_back(classes_of(code));
  if (text.size() > 1 && kLatinLead.find(text[0]) != std::u32string_view::npos && text[1] == ' ') return true;
  const auto fits = [&](const Rule& rule, size_t at) {
    if (text.size() - at < rule.size()) return false;
    for (size_t i = 0; i < rule.size(); ++i) {
      const bool is_in_class = (classes[at + i] & rule[i].classes) != 0;
      if (!is_in_class && rule[i].characters.find(text[at + i]) == std::u32string_view::npos) return false;
    }
    return true;
  };
  for (size_t at = 0; at < text.size(); ++at)
    for (const Rule& rule : rules())
      if (fits(rule, at)) return true;
  return false;
}

}  // namespace strobe::models::text
