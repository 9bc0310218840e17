// What the attention of a run really did: counts and times by (kind, pattern, backend), density by step and layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/site.h"

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

// Share of the pairs that the self or joint attention of one layer computed in one step, all branches together.
struct SiteDensity {
  int step = 0;
  int layer = 0;
  double pairs = 0;
  double dense_pairs = 0;

  double density() const { return dense_pairs > 0 ? pairs / dense_pairs : 1.0; }
};

class AttentionStats {
 public:
  void add(const AttentionSite& site, const AttentionRow& row);
  const std::vector<AttentionRow>& rows() const { return rows_; }
  // In the order of the calls; cross attention is not in it.
  const std::vector<SiteDensity>& sites() const { return sites_; }
  void clear() {
    rows_.clear();
    sites_.clear();
  }

 private:
  void add_site(const AttentionSite& site, const AttentionRow& row);
  std::vector<AttentionRow> rows_;
  std::vector<SiteDensity> sites_;
};

}  // namespace strobe::attention
