#include "attention/stats.h"

#include "core/torch.h"

namespace strobe::attention {
void add_name(std::string& names, const std::string& name) {
  const std::string all = "+" + names + "+";
  if (all.find("+" + name + "+") != std::string::npos) return;
  names += (names.empty() ? "" : "+") + name;
}

void AttentionStats::add_site(const AttentionSite& site, const AttentionRow& row) {
  if (site.kind == AttentionKind::kCross) return;
  SiteRow* at = nullptr;
  // Calls of one layer in one step are few apart: its branches.
  for (auto known = sites_.rbegin(); known != sites_.rend() && known->step == site.step; ++known) {
    if (known->layer == site.layer) {
      at = &*known;
      break;
    }
  }
  if (!at) at = &sites_.emplace_back(SiteRow{.step = site.step, .layer = site.layer});
  add_name(at->method, row.pattern);
  add_name(at->kernel, row.backend);
  at->pairs += row.pairs;
  at->dense_pairs += row.dense_pairs;
  at->plans += row.plans;
  at->cache_hits += row.cache_hits;
  at->selection_ms += row.selection_ms;
}

void AttentionStats::add(const AttentionSite& site, const AttentionRow& row) {
  add_site(site, row);
  for (AttentionRow& known : rows_) {
    if (known.kind == row.kind && known.pattern == row.pattern && known.backend == row.backend &&
        known.note == row.note && known.passed_over == row.passed_over) {
      known.calls += row.calls;
      known.pairs += row.pairs;
      known.dense_pairs += row.dense_pairs;
      known.milliseconds += row.milliseconds;
      known.plans += row.plans;
      known.cache_hits += row.cache_hits;
      known.selection_ms += row.selection_ms;
      return;
    }
  }
  rows_.push_back(row);
}

void AttentionStats::restore(std::vector<AttentionRow> rows, std::vector<SiteRow> sites) {
  rows_ = std::move(rows);
  sites_ = std::move(sites);
}

}  // namespace strobe::attention
