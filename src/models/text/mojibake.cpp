#include "models/text/mojibake.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "models/text/mojibake_rules.h"
#include "models/text/unicode.h"

namespace strobe::models::text {
namespace {

constexpr std::array<std::array<uint16_t, 128>, 9> kPages = {{
#include "models/text/code_pages.inc"
}};
constexpr size_t kWindows1252 = 0;
constexpr size_t kNumSloppyPages = 6;  // these stand undefined bytes for themselves, and 0x1A for U+FFFD
constexpr size_t kMacRoman = 7;
constexpr uint8_t kLostByte = 0x1A;

bool is_trail(uint8_t byte) { return byte >= 0x80 && byte <= 0xBF; }

// A code page backwards; Latin-1 is -1.
class Encoder {
 public:
  explicit Encoder(int page) : page_(page) {
    if (page_ < 0) return;
    for (size_t i = 0; i < 128; ++i) bytes_[kPages[static_cast<size_t>(page_)][i]] = static_cast<uint8_t>(i + 0x80);
  }
  bool is_sloppy() const { return page_ >= 0 && static_cast<size_t>(page_) < kNumSloppyPages; }
  bool is_mac_roman() const { return page_ == static_cast<int>(kMacRoman); }

  std::optional<std::string> encode(std::u32string_view text) const {
    std::string out;
    out.reserve(text.size());
    for (const char32_t code : text) {
      if (is_sloppy() && code == kLostByte) return std::nullopt;
      if (code < 0x80 || (page_ < 0 && code < 0x100)) {
        out.push_back(static_cast<char>(static_cast<uint8_t>(code)));
      } else if (is_sloppy() && code == kReplacement) {
        out.push_back(static_cast<char>(kLostByte));
      } else {
        const auto found = bytes_.find(code);
        if (found == bytes_.end()) return std::nullopt;
        out.push_back(static_cast<char>(found->second));
      }
    }
    return out;
  }

 private:
  int page_;
  std::unordered_map<char32_t, uint8_t> bytes_;
};

const std::vector<Encoder>& encoders() {
  static const std::vector<Encoder> all = [] {
    std::vector<Encoder> list;
    for (int page = -1; page < static_cast<int>(kPages.size()); ++page) list.emplace_back(page);
    return list;
  }();
  return all;
}

// A pattern of byte sets at `bytes[at]`.
using ByteTest = bool (*)(uint8_t);
bool matches_at(std::string_view bytes, size_t at, std::initializer_list<ByteTest> tests) {
  if (bytes.size() - at < tests.size()) return false;
  for (const ByteTest test : tests)
    if (!test(static_cast<uint8_t>(bytes[at++]))) return false;
  return true;
}

bool is_space(uint8_t b) { return b == ' '; }
bool is_f0(uint8_t b) { return b == 0xF0; }
bool is_spaced_lead2(uint8_t b) { return b == 0xC2 || b == 0xC3 || b == 0xC5 || b == 0xCE || b == 0xD0 || b == 0xD9; }
bool is_e2_e3(uint8_t b) { return b == 0xE2 || b == 0xE3; }
bool is_e0_e3(uint8_t b) { return b >= 0xE0 && b <= 0xE3; }
bool is_spaced_trail(uint8_t b) { return is_trail(b) && b != 0x85 && b != 0xA0; }

// Length of a UTF-8 sequence at `at` in which a space stands for byte 0xA0, or 0. Only leads that make likely
// characters.
size_t spaced_sequence(std::string_view bytes, size_t at) {
  if (matches_at(bytes, at, {is_spaced_lead2, is_space})) return 2;
  if (matches_at(bytes, at, {is_e2_e3, is_space, is_spaced_trail})) return 3;
  if (matches_at(bytes, at, {is_e0_e3, is_spaced_trail, is_space})) return 3;
  if (matches_at(bytes, at, {is_f0, is_space, is_trail, is_trail})) return 4;
  if (matches_at(bytes, at, {is_f0, is_trail, is_space, is_trail})) return 4;
  if (matches_at(bytes, at, {is_f0, is_trail, is_trail, is_space})) return 4;
  return 0;
}

// Puts 0xA0 back where a space took its place; "à" as a word of its own keeps its space.
std::string restore_a0(const std::string& bytes) {
  bool has_any = false;
  for (size_t i = 0; i < bytes.size() && !has_any; ++i) has_any = spaced_sequence(bytes, i) > 0;
  if (!has_any) return bytes;
  std::string first;
  for (size_t i = 0; i < bytes.size(); ++i) {
    first.push_back(bytes[i]);
    if (bytes.compare(i, 2, "\xC3 ") != 0) continue;
    const std::string_view rest = std::string_view(bytes).substr(i + 2);
    const bool is_portuguese =
        rest.starts_with("quele") || rest.starts_with("quela") || rest.starts_with("quilo") || rest.starts_with("s ");
    if (rest.starts_with(" ") || is_portuguese) continue;
    first += "\xA0 ";
    ++i;
  }
  for (size_t i = 0; i < first.size();) {
    const size_t length = spaced_sequence(first, i);
    for (size_t k = 0; k < length; ++k)
      if (first[i + k] == ' ') first[i + k] = '\xA0';
    i += std::max<size_t>(length, 1);
  }
  return first;
}

bool is_lost(uint8_t b) { return b == kLostByte; }
bool is_lost_or_mark(uint8_t b) { return b == kLostByte || b == '?'; }
bool is_trail_or_lost(uint8_t b) { return is_trail(b) || b == kLostByte; }
bool is_trail_or_any(uint8_t b) { return is_trail(b) || b == kLostByte || b == '?'; }
bool is_ed(uint8_t b) { return b == 0xED; }
bool is_high_half(uint8_t b) { return b >= 0xA0 && b <= 0xAF; }
bool is_low_half(uint8_t b) { return b >= 0xB0 && b <= 0xBF; }
bool is_lead2(uint8_t b) { return b >= 0xC2 && b <= 0xDF; }
bool is_c2_c3(uint8_t b) { return b == 0xC2 || b == 0xC3; }
bool is_lead3(uint8_t b) { return b >= 0xE0 && b <= 0xEF; }
bool is_lead4(uint8_t b) { return b >= 0xF0 && b <= 0xF4; }

// Length of a UTF-8 sequence at `at` of which some byte was lost, or 0. A question mark stands for at most one.
size_t lossy_sequence(std::string_view bytes, size_t at) {
  if (matches_at(bytes, at, {is_lead2, is_lost}) ||
      matches_at(bytes, at, {is_c2_c3, [](uint8_t b) { return b == '?'; }}))
    return 2;
  if (matches_at(bytes, at, {is_ed, is_high_half, is_lost_or_mark, is_ed, is_low_half, is_trail_or_any}) ||
      matches_at(bytes, at, {is_ed, is_high_half, is_trail_or_any, is_ed, is_low_half, is_lost_or_mark}))
    return 6;
  if (matches_at(bytes, at, {is_lead3, is_lost_or_mark, is_trail_or_lost}) ||
      matches_at(bytes, at, {is_lead3, is_trail_or_lost, is_lost_or_mark}))
    return 3;
  if (matches_at(bytes, at, {is_lead4, is_lost_or_mark, is_trail_or_lost, is_trail_or_lost}) ||
      matches_at(bytes, at, {is_lead4, is_trail_or_lost, is_lost_or_mark, is_trail_or_lost}) ||
      matches_at(bytes, at, {is_lead4, is_trail_or_lost, is_trail_or_lost, is_lost_or_mark}))
    return 4;
  return matches_at(bytes, at, {is_lost}) ? 1 : 0;
}

std::string replace_lost(const std::string& bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = lossy_sequence(bytes, i);
    if (length > 0) {
      out += "\xEF\xBF\xBD";
      i += length;
    } else {
      out.push_back(bytes[i++]);
    }
  }
  return out;
}

// UTF-8, also with 0xC0 0x80 for a zero and with pairs of three-byte surrogates.
std::optional<std::u32string> decode_variants(std::string_view bytes) {
  std::u32string out;
  size_t done = 0;
  const auto flush = [&](size_t end) { return decode_utf8_strict(bytes.substr(done, end - done), out); };
  for (size_t i = 0; i < bytes.size();) {
    const bool is_null = bytes.substr(i, 2) == "\xC0\x80";
    const bool is_pair = matches_at(bytes, i, {is_ed, is_high_half, is_trail, is_ed, is_low_half, is_trail});
    if (!is_null && !is_pair) {
      ++i;
      continue;
    }
    if (!flush(i)) return std::nullopt;
    const auto bits = [&](size_t k, uint32_t mask) {
      return static_cast<uint32_t>(static_cast<uint8_t>(bytes[i + k])) & mask;
    };
    if (is_pair) {
      out.push_back(0x10000 + (bits(1, 0x0F) << 16) + (bits(2, 0x3F) << 10) + (bits(4, 0x0F) << 6) + bits(5, 0x3F));
    } else {
      out.push_back(0);
    }
    i += is_null ? 2 : 6;
    done = i;
  }
  if (!flush(bytes.size())) return std::nullopt;
  return out;
}

std::optional<std::u32string> reread(std::u32string_view text, const Encoder& page) {
  auto bytes = page.encode(text);
  if (!bytes) return std::nullopt;
  if (!page.is_mac_roman()) *bytes = restore_a0(*bytes);
  if (page.is_sloppy()) *bytes = replace_lost(*bytes);
  return decode_variants(*bytes);
}

// Characters that bytes of a UTF-8 sequence become in the Latin-like code pages.
struct SequenceClasses {
  std::unordered_set<char32_t> lead2;
  std::unordered_set<char32_t> lead3;
  std::unordered_set<char32_t> lead4;
  std::unordered_set<char32_t> trail;
  std::unordered_set<char32_t> strict_trail;  // without those that often stand for themselves beside mojibake
};

const SequenceClasses& sequence_classes() {
  static const SequenceClasses classes = [] {
    SequenceClasses made;
    const auto add = [&](uint8_t byte, char32_t code) {
      if (is_lead2(byte)) made.lead2.insert(code);
      if (is_lead3(byte)) made.lead3.insert(code);
      if (byte == 0xF0 || byte == 0xF3) made.lead4.insert(code);
      if (is_trail(byte)) made.trail.insert(code);
    };
    for (uint32_t byte = 0x80; byte < 0x100; ++byte) {
      add(static_cast<uint8_t>(byte), byte);
      for (size_t page = 0; page < kNumSloppyPages; ++page) add(static_cast<uint8_t>(byte), kPages[page][byte - 0x80]);
    }
    made.trail.insert(U' ');
    made.strict_trail = made.trail;
    for (const char32_t code :
         std::u32string_view(U" \u2013\u2014\u2015\u2018\u2019\u201A\u201C\u201D\u201E\u2022\u2026"))
      made.strict_trail.erase(code);
    return made;
  }();
  return classes;
}

size_t sequence_length(std::u32string_view text, size_t at) {
  const SequenceClasses& classes = sequence_classes();
  const auto has_trail = [&](size_t count) {
    if (text.size() - at < count + 1) return false;
    for (size_t i = 1; i <= count; ++i)
      if (!classes.trail.contains(text[at + i])) return false;
    return true;
  };
  if (classes.lead2.contains(text[at]) && has_trail(1)) return 2;
  if (classes.lead3.contains(text[at]) && has_trail(2)) return 3;
  if (classes.lead4.contains(text[at]) && has_trail(3)) return 4;
  return 0;
}

// Repairs runs of characters that look like UTF-8 bytes inside text that is otherwise right.
std::u32string repair_runs(std::u32string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    if (i == 0 || !sequence_classes().strict_trail.contains(text[i - 1])) {
      for (size_t length = 1; end < text.size() && length > 0; end += length) length = sequence_length(text, end);
    }
    if (end == i) {
      out.push_back(text[i++]);
      continue;
    }
    const std::u32string_view run = text.substr(i, end - i);
    // A run that is the whole text was already tried as a whole.
    const bool is_part = run.size() < text.size();
    out += is_part && looks_like_mojibake(run) ? repair_encoding(std::u32string(run)) : std::u32string(run);
    i = end;
  }
  return out;
}

bool is_ascii(std::u32string_view text) {
  return std::all_of(text.begin(), text.end(), [](char32_t code) { return code < 0x80; });
}

// Latin-1 with C1 controls that was meant as Windows-1252; nullopt if one of the controls means nothing there.
std::optional<std::u32string> latin1_as_windows(std::u32string_view text) {
  std::u32string out;
  for (const char32_t code : text) {
    if (code > 0xFF) return std::nullopt;
    const char32_t meant = code < 0x80 ? code : kPages[kWindows1252][code - 0x80];
    if (meant >= 0x80 && meant < 0xA0) return std::nullopt;
    out.push_back(meant);
  }
  return out;
}

std::u32string repair_once(const std::u32string& text) {
  if (is_ascii(text) || !looks_like_mojibake(text)) return text;
  for (const Encoder& page : encoders())
    if (auto fixed = reread(text, page)) return *fixed;
  if (std::u32string fixed = repair_runs(text); fixed != text) return fixed;
  if (const auto fixed = latin1_as_windows(text); fixed && *fixed != text) return *fixed;
  return replace_c1_controls(text);
}

}  // namespace

std::u32string repair_encoding(std::u32string text) {
  while (true) {
    std::u32string fixed = repair_once(text);
    if (fixed == text) return text;
    text = std::move(fixed);
  }
}

std::u32string replace_c1_controls(std::u32string text) {
  for (char32_t& code : text)
    if (code >= 0x80 && code < 0xA0) code = kPages[kWindows1252][code - 0x80];
  return text;
}

}  // namespace strobe::models::text
