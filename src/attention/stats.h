// What the attention of a run really did: counts and times by (kind, method, kernel), and by step and layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/site.h"

namespace strobe::attention {

struct AttentionRow {
  std::string kind;  // "self", "cross", "joint"
  std::string pattern;
  std::string backend;      // the kernel that ran
  std::string note;         // why a sparse method ran dense
  std::string passed_over;  // better kernels that could not, with their reasons
  int64_t calls = 0;
  double pairs = 0;         // query-key pairs computed, all heads and batch rows; pooled keys count once
  double dense_pairs = 0;   // what dense would have computed
  double milliseconds = 0;  // wall clock; on a GPU the time to launch. Selection is in it
  int64_t plans = 0;        // layouts made
  int64_t cache_hits = 0;   // layouts taken from the cache
  double selection_ms = 0;  // orders, plans, what a method observes

  double density() const { return dense_pairs > 0 ? pairs / dense_pairs : 1.0; }
};

// The self or joint attention of one layer in one step, all branches together.
struct SiteRow {
  int step = 0;
  int layer = 0;
  std::string method;  // "radial", "radial+dense" where heads differ
  std::string kernel;
  double pairs = 0;
  double dense_pairs = 0;
  int64_t plans = 0;
  int64_t cache_hits = 0;
  double selection_ms = 0;

  double density() const { return dense_pairs > 0 ? pairs / dense_pairs : 1.0; }
};

// Joins names with '+', each once: "radial", then "radial+dense".
void add_name(std::string& names, const std::string& name);

class AttentionStats {
 public:
  void add(const AttentionSite& site, const AttentionRow& row);
  const std::vector<AttentionRow>& rows() const { return rows_; }
  // In the order of the calls; cross attention is not in it.
  const std::vector<SiteRow>& sites() const { return sites_; }
  // What was counted by an earlier process of the same run.
  void restore(std::vector<AttentionRow> rows, std::vector<SiteRow> sites);
  void clear() {
    rows_.clear();
    sites_.clear();
  }

 private:
  void add_site(const AttentionSite& site, const AttentionRow& row);
  std::vector<AttentionRow> rows_;
  std::vector<SiteRow> sites_;
};

}  // namespace strobe::attention
