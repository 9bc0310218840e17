// Unigram piece model: splits one word into the pieces with the largest sum of scores.
//
// Contract  A character that no piece covers is "unknown" with score min_score - 10; neighbouring unknowns become one
//           id. Of equal sums the one found first wins (shorter pieces from the left). Scores are double, as in
//           tokenizer.json.
// Cost      O(bytes x longest piece) hash look-ups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace strobe::models::text {

struct UnigramOptions {
  int32_t unknown_id = 0;
  bool has_byte_fallback = false;  // unknown characters become <0xNN> pieces where all of them exist
};

class Unigram {
 public:
  // An id is the position in `pieces`. `unknown_id` must be one of them.
  Unigram(std::vector<std::pair<std::string, double>> pieces, UnigramOptions options);

  // Appends the ids of one word, UTF-8.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

  // -1 if there is no such piece.
  int32_t find(std::string_view piece) const;
  size_t size() const { return scores_.size(); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  void append_piece(std::string_view text, std::vector<int32_t>& ids) const;

  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<double> scores_;
  size_t longest_piece_ = 0;  // bytes
  double unknown_score_ = 0;
  UnigramOptions options_;
};

}  // namespace strobe::models::text
