#include "models/text/special_tokens.h"

#include <algorithm>
#include <utility>

#include "models/text/unicode.h"

namespace strobe::models::text {

SpecialTokens::SpecialTokens(std::vector<SpecialToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i)
    if (!tokens_[i].text.empty()) by_first_[tokens_[i].text.front()].push_back(i);
  for (auto& [first, indices] : by_first_) {
    std::stable_sort(indices.begin(), indices.end(),
                     [&](size_t a, size_t b) { return tokens_[a].text.size() > tokens_[b].text.size(); });
  }
}

const SpecialToken* SpecialTokens::match(const std::u32string& text, size_t begin) const {
  const auto found = by_first_.find(text[begin]);
  if (found == by_first_.end()) return nullptr;
  for (const size_t i : found->second)
    if (text.compare(begin, tokens_[i].text.size(), tokens_[i].text) == 0) return &tokens_[i];
  return nullptr;
}

std::vector<Segment> SpecialTokens::split(const std::u32string& text) const {
  std::vector<Segment> segments;
  size_t done = 0;
  for (size_t i = 0; i < text.size();) {
    const SpecialToken* token = match(text, i);
    if (token == nullptr) {
      ++i;
      continue;
    }
    size_t begin = i;
    size_t end = i + token->text.size();
    i = end;
    if (token->is_single_word) {
      const bool touches_left = begin > 0 && is_word_character(text[begin - 1]);
      const bool touches_right = end < text.size() && is_word_character(text[end]);
      if (touches_left || touches_right) continue;
    }
    while (token->strips_left && begin > done && is_white_space(text[begin - 1])) --begin;
    while (token->strips_right && end < text.size() && is_white_space(text[end])) ++end;
    if (done < begin) segments.push_back({text.substr(done, begin - done), -1, done});
    segments.push_back({text.substr(begin, end - begin), token->id, begin});
    done = end;
    i = std::max(i, end);
  }
  if (done < text.size()) segments.push_back({text.substr(done), -1, done});
  return segments;
}

}  // namespace strobe::models::text
