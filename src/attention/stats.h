// What the attention of a run really did: counts and times by (kind, pattern, backend).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace strobe::attention {

struct AttentionRow {
  std::string kind;  // "self", "cross", "joint"
  std::string pattern;
  std::string backend;  // the one that ran
  std::string note;     // why a sparse method ran dense, or a better backend was passed over
  int64_t calls = 0;
  double pairs = 0;         // query-key pairs computed, all heads and batch rows
  double dense_pairs = 0;   // what dense would have computed
  double milliseconds = 0;  // wall clock; on a GPU the time to launch

  double density() const { return dense_pairs > 0 ? pairs / dense_pairs : 1.0; }
};

class AttentionStats {
 public:
  void add(const AttentionRow& row);
  const std::vector<AttentionRow>& rows() const { return rows_; }
  void clear() { rows_.clear(); }

 private:
  std::vector<AttentionRow> rows_;
};

}  // namespace strobe::attention
