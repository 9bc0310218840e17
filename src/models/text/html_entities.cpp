#include "models/text/html_entities.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <optional>

#include "models/text/unicode.h"

namespace strobe::models::text {
namespace {

struct Entity {
  std::string_view name;  // with its semicolon, if it has one
  std::string_view value;
};

constexpr Entity kEntities[] = {
#include "models/text/html_entities.inc"
};
constexpr Entity kCapitalEntities[] = {
#include "models/text/html_entities_upper.inc"
};
constexpr size_t kLongestName = 32;

// References 0x80..0x9F mean Windows-1252, which leaves five of them undefined.
constexpr std::array<uint16_t, 32> kWindows1252 = {0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
                                                   0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0x8D,   0x017D, 0x8F,
                                                   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
                                                   0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};

std::optional<std::string_view> look_up(const Entity* begin, const Entity* end, std::string_view name) {
  const Entity* found =
      std::lower_bound(begin, end, name, [](const Entity& entity, std::string_view key) { return entity.name < key; });
  if (found == end || found->name != name) return std::nullopt;
  return found->value;
}

std::optional<std::string_view> find_entity(std::string_view name) {
  return look_up(std::begin(kEntities), std::end(kEntities), name);
}

bool is_ascii_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_ascii_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

int hex_value(char32_t c) {
  if (is_ascii_digit(c)) return static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int>(c - 'a') + 10;
  if (c >= 'A' && c <= 'F') return static_cast<int>(c - 'A') + 10;
  return -1;
}

// nullopt: the reference means nothing and vanishes.
std::optional<char32_t> character_of(uint32_t number) {
  if (number == 0) return kReplacement;
  if (number == 0x0D) return U'\r';
  if (number >= 0x80 && number <= 0x9F) return kWindows1252[number - 0x80];
  if ((number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF) return kReplacement;
  const bool is_control =
      (number >= 0x01 && number <= 0x08) || number == 0x0B || (number >= 0x0E && number <= 0x1F) || number == 0x7F;
  const bool is_none = (number >= 0xFDD0 && number <= 0xFDEF) || (number & 0xFFFE) == 0xFFFE;
  if (is_control || is_none) return std::nullopt;
  return static_cast<char32_t>(number);
}

// A numeric reference at text[at] == '&', text[at + 1] == '#'; returns its end, or `at` if there is none.
size_t parse_number(std::u32string_view text, size_t at, std::u32string& out) {
  size_t i = at + 2;
  const bool is_hex = i < text.size() && (text[i] == 'x' || text[i] == 'X');
  if (is_hex) ++i;
  const size_t first = i;
  uint32_t number = 0;
  for (; i < text.size(); ++i) {
    const int digit = hex_value(text[i]);
    if (digit < 0 || (!is_hex && digit > 9)) break;
    number = std::min<uint32_t>(number * (is_hex ? 16 : 10) + static_cast<uint32_t>(digit), 0x110000);
  }
  if (i == first) return at;
  if (i < text.size() && text[i] == ';') ++i;
  if (const auto code = character_of(number)) out.push_back(*code);
  return i;
}

// A named reference at text[at] == '&'; returns its end, or `at` if there is none.
size_t parse_name(std::u32string_view text, size_t at, std::u32string& out) {
  size_t end = at + 1;
  const auto may_follow = [](char32_t c) {
    return c != '\t' && c != '\n' && c != '\f' && c != ' ' && c != '<' && c != '&' && c != '#' && c != ';';
  };
  while (end < text.size() && end - at - 1 < kLongestName && may_follow(text[end])) ++end;
  if (end == at + 1) return at;
  if (end < text.size() && text[end] == ';') ++end;
  for (size_t stop = end; stop > at + 2; --stop) {
    if (const auto value = find_entity(encode_utf8(text.substr(at + 1, stop - at - 1)))) {
      out += decode_utf8(*value);
      return stop;
    }
  }
  // No prefix is a name: the whole candidate stays, and nothing inside it is looked at again.
  out += text.substr(at, end - at);
  return end;
}

std::optional<std::u32string> certain_value(std::u32string_view reference) {
  if (reference[1] == '#') {
    const std::u32string value = unescape_html(reference);
    if (value.find(U';') != std::u32string::npos) return std::nullopt;
    return value;
  }
  std::string name = encode_utf8(reference.substr(1));
  if (const auto value = find_entity(name)) return decode_utf8(*value);
  for (char& c : name) {
    if (c >= 'a' && c <= 'z') return std::nullopt;
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  const auto value = find_entity(name);
  // Some capitals already mean something by their beginning: &LTIMES; is < and "IMES;".
  if (!value || unescape_html(reference) != reference) return std::nullopt;
  const auto capital = look_up(std::begin(kCapitalEntities), std::end(kCapitalEntities), name);
  return decode_utf8(capital ? *capital : *value);
}

}  // namespace

std::u32string unescape_html(std::u32string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '&' && i + 1 < text.size()) {
      const size_t end = text[i + 1] == '#' ? parse_number(text, i, out) : parse_name(text, i, out);
      if (end > i) {
        i = end;
        continue;
      }
    }
    out.push_back(text[i++]);
  }
  return out;
}

std::u32string unescape_certain_html(std::u32string_view text) {
  constexpr size_t kLongest = 24;
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '&') {
      const size_t first = i + 1 + (i + 1 < text.size() && text[i + 1] == '#' ? 1 : 0);
      size_t end = first;
      while (end < text.size() && end - first <= kLongest && (is_ascii_digit(text[end]) || is_ascii_letter(text[end])))
        ++end;
      if (end > first && end - first <= kLongest && end < text.size() && text[end] == ';') {
        const std::u32string_view reference = text.substr(i, end + 1 - i);
        const auto value = certain_value(reference);
        out += value ? *value : std::u32string(reference);
        i = end + 1;
        continue;
      }
    }
    out.push_back(text[i++]);
  }
  return out;
}

}  // namespace strobe::models::text
