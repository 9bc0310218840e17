#include "models/text/prompt_cleaning.h"

#include <algorithm>
#include <cstddef>
#include <unordered_map>

#include "models/text/html_entities.h"
#include "models/text/mojibake.h"
#include "models/text/unicode.h"

namespace strobe::models {
namespace {

using text::NormalForm;

constexpr size_t kLongestSegment = 1'000'000;

const std::unordered_map<char32_t, std::u32string>& replacements() {
  static const std::unordered_map<char32_t, std::u32string> table = [] {
    std::unordered_map<char32_t, std::u32string> made = {
        // Ligatures and digraphs of Latin letters.
        {0x132, U"IJ"},
        {0x133, U"ij"},
        {0x149, U"\u02BCn"},
        {0x1F1, U"DZ"},
        {0x1F2, U"Dz"},
        {0x1F3, U"dz"},
        {0x1C4, U"D\u017D"},
        {0x1C5, U"D\u017E"},
        {0x1C6, U"d\u017E"},
        {0x1C7, U"LJ"},
        {0x1C8, U"Lj"},
        {0x1C9, U"lj"},
        {0x1CA, U"NJ"},
        {0x1CB, U"Nj"},
        {0x1CC, U"nj"},
        {0xFB00, U"ff"},
        {0xFB01, U"fi"},
        {0xFB02, U"fl"},
        {0xFB03, U"ffi"},
        {0xFB04, U"ffl"},
        {0xFB05, U"\u017Ft"},
        {0xFB06, U"st"},
        // The ideographic space belongs to the full-width forms.
        {0x3000, U" "},
    };
    for (char32_t code = 0xFF01; code < 0xFFF0; ++code) {
      const std::u32string_view form(&code, 1);
      std::u32string usual = text::normalize(form, NormalForm::kNfkc);
      if (usual != form) made.emplace(code, std::move(usual));
    }
    return made;
  }();
  return table;
}

std::u32string replace_forms(const std::u32string& segment) {
  std::u32string out;
  out.reserve(segment.size());
  for (const char32_t code : segment) {
    const auto found = replacements().find(code);
    if (found == replacements().end()) {
      out.push_back(code);
    } else {
      out += found->second;
    }
  }
  for (char32_t& code : out) {
    if (code == 0x2BC || (code >= 0x2018 && code <= 0x201B)) code = U'\'';
    if (code >= 0x201C && code <= 0x201F) code = U'"';
  }
  return out;
}

std::u32string unify_line_breaks(const std::u32string& segment) {
  std::u32string out;
  for (size_t i = 0; i < segment.size(); ++i) {
    const char32_t code = segment[i];
    if (code == '\r' && i + 1 < segment.size() && segment[i + 1] == '\n') continue;
    const bool is_break = code == '\r' || code == 0x2028 || code == 0x2029 || code == 0x85;
    out.push_back(is_break ? U'\n' : code);
  }
  return out;
}

// ESC [ digits and semicolons, then a letter.
std::u32string remove_terminal_escapes(const std::u32string& segment) {
  std::u32string out;
  for (size_t i = 0; i < segment.size();) {
    if (segment[i] == 0x1B && i + 1 < segment.size() && segment[i + 1] == '[') {
      size_t end = i + 2;
      while (end < segment.size() && (segment[end] == ';' || text::is_decimal_digit(segment[end]))) ++end;
      const char32_t last = end < segment.size() ? segment[end] : U'\0';
      if ((last >= 'a' && last <= 'z') || (last >= 'A' && last <= 'Z')) {
        i = end + 1;
        continue;
      }
    }
    out.push_back(segment[i++]);
  }
  return out;
}

bool is_unwanted(char32_t code) {
  return code < 0x09 || code == 0x0B || (code >= 0x0E && code < 0x20) || code == 0x7F ||
         (code >= 0x206A && code <= 0x206F) || code == 0xFEFF || (code >= 0xFFF9 && code <= 0xFFFC);
}

std::u32string fix_segment(std::u32string segment, bool decodes_html) {
  while (true) {
    std::u32string fixed = decodes_html ? text::unescape_certain_html(segment) : segment;
    fixed = text::replace_c1_controls(text::repair_encoding(std::move(fixed)));
    fixed = remove_terminal_escapes(unify_line_breaks(replace_forms(fixed)));
    std::erase_if(fixed, is_unwanted);
    fixed = text::normalize(fixed, NormalForm::kNfc);
    if (fixed == segment) return fixed;
    segment = std::move(fixed);
  }
}

// Line by line, as the wrong code page of one line says nothing about the next. A '<' means that the text is HTML from
// there on, whose references are meant.
std::u32string fix_text(const std::u32string& all) {
  std::u32string out;
  bool decodes_html = true;
  for (size_t begin = 0; begin < all.size();) {
    const size_t newline = all.find(U'\n', begin);
    size_t end = newline == std::u32string::npos ? all.size() : newline + 1;
    end = std::min(end, begin + kLongestSegment);
    std::u32string segment = all.substr(begin, end - begin);
    decodes_html = decodes_html && segment.find(U'<') == std::u32string::npos;
    out += fix_segment(std::move(segment), decodes_html);
    begin = end;
  }
  return out;
}

std::u32string collapse_spaces(const std::u32string& all) {
  std::u32string out;
  for (const char32_t code : all) {
    if (!text::is_python_space(code)) {
      out.push_back(code);
    } else if (!out.empty() && out.back() != U' ') {
      out.push_back(U' ');
    }
  }
  if (!out.empty() && out.back() == U' ') out.pop_back();
  return out;
}

}  // namespace

std::string clean_prompt(std::string_view prompt) {
  const std::u32string fixed = fix_text(text::decode_utf8(prompt));
  return text::encode_utf8(collapse_spaces(text::unescape_html(text::unescape_html(fixed))));
}

}  // namespace strobe::models
