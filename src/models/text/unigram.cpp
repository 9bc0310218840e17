#include "models/text/unigram.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace strobe::models::text {
namespace {

constexpr double kUnknownPenalty = 10;

size_t character_bytes(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The best way to reach a byte position.
struct Node {
  double score = 0;
  size_t begin = std::numeric_limits<size_t>::max();
  int32_t id = 0;
  bool is_reached() const { return begin != std::numeric_limits<size_t>::max(); }
};

}  // namespace

Unigram::Unigram(std::vector<std::pair<std::string, double>> pieces, UnigramOptions options) : options_(options) {
  STROBE_CHECK(options.unknown_id >= 0 && static_cast<size_t>(options.unknown_id) < pieces.size(),
               "unigram model: unknown_id: expected a piece of {}, got {}", pieces.size(), options.unknown_id);
  double min_score = std::numeric_limits<double>::infinity();
  ids_.reserve(pieces.size());
  scores_.reserve(pieces.size());
  for (auto& [piece, score] : pieces) {
    min_score = std::min(min_score, score);
    longest_piece_ = std::max(longest_piece_, piece.size());
    ids_.insert_or_assign(std::move(piece), static_cast<int32_t>(scores_.size()));
    scores_.push_back(score);
  }
  unknown_score_ = min_score - kUnknownPenalty;
}

int32_t Unigram::find(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? -1 : found->second;
}

void Unigram::append_piece(std::string_view text, std::vector<int32_t>& ids) const {
  if (const int32_t id = find(text); id >= 0) {
    ids.push_back(id);
    return;
  }
  if (options_.has_byte_fallback) {
    std::vector<int32_t> bytes;
    for (const char c : text) bytes.push_back(find(fmt::format("<0x{:02X}>", static_cast<uint8_t>(c))));
    if (std::find(bytes.begin(), bytes.end(), -1) == bytes.end()) {
      ids.insert(ids.end(), bytes.begin(), bytes.end());
      return;
    }
  }
  ids.push_back(options_.unknown_id);
}

void Unigram::encode(std::string_view word, std::vector<int32_t>& ids) const {
  std::vector<Node> best(word.size() + 1);
  const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
    if (!best[end].is_reached() || score > best[end].score) best[end] = {score, begin, id};
  };
  for (size_t begin = 0; begin < word.size();) {
    const size_t step = std::min(character_bytes(word[begin]), word.size() - begin);
    const double so_far = best[begin].score;
    const size_t longest = std::min(longest_piece_, word.size() - begin);
    bool has_single = false;
    // Pieces end where characters end, so only those lengths are looked up.
    for (size_t length = step; length <= longest; length += character_bytes(word[begin + length])) {
      const int32_t id = find(word.substr(begin, length));
      if (id >= 0) {
        offer(begin, begin + length, so_far + scores_[static_cast<size_t>(id)], id);
        has_single = has_single || length == step;
      }
      if (begin + length >= word.size()) break;
    }
    if (!has_single) offer(begin, begin + step, so_far + unknown_score_, options_.unknown_id);
    begin += step;
  }
  std::vector<std::pair<size_t, size_t>> path;  // from the end
  for (size_t end = word.size(); end > 0;) {
    const Node& node = best[end];
    const bool joins = !path.empty() && node.id == options_.unknown_id && path.back().first == end &&
                       best[path.back().second].id == options_.unknown_id;
    if (joins) {
      path.back().first = node.begin;
    } else {
      path.emplace_back(node.begin, end);
    }
    end = node.begin;
  }
  for (auto span = path.rbegin(); span != path.rend(); ++span) {
    const std::string_view text = word.substr(span->first, span->second - span->first);
    append_piece(text, ids);
  }
}

}  // namespace strobe::models::text
