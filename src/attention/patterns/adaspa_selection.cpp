#include "attention/patterns/adaspa_selection.h"

#include <numeric>

#include "core/torch.h"
// After the precompiled header.
#include "attention/patterns/plan_state.h"
#include "attention/selection.h"
#include "core/parallel.h"

namespace strobe::attention {
namespace {

constexpr int64_t kRowsOfTask = 16;

// Calls visit(head, row, masses of the row's key blocks) for every video row of every head.
void for_video_rows(const MassBlocks& blocks, const std::function<void(int64_t, int64_t, const float*)>& visit) {
  const int64_t heads = blocks.mass.size(0), rows = blocks.video_rows.size();
  const float* const mass = blocks.mass.const_data_ptr<float>();
  parallel_for(0, heads * rows, kRowsOfTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / rows, row = blocks.video_rows.first + i % rows;
      visit(head, row, mass + (head * blocks.mass.size(1) + row) * blocks.mass.size(2));
    }
  });
}

double text_mass(const MassBlocks& blocks, const float* row) {
  return std::accumulate(row, row + blocks.video_cols.first, 0.0) +
         std::accumulate(row + blocks.video_cols.end, row + blocks.mass.size(2), 0.0);
}

// The shortest prefix of the ranked video blocks that, with the text, holds theta of the row's mass.
std::vector<int32_t> prefix_of_mass(const MassBlocks& blocks, double theta, const float* row) {
  const BlockRange& cols = blocks.video_cols;
  std::vector<int32_t> ranked = best_indices(row + cols.first, cols.size(), cols.size());
  if (theta >= 1) return ranked;  // rounding must not drop what weighs little
  double kept = text_mass(blocks, row);
  const double wanted = theta * std::accumulate(row, row + blocks.mass.size(2), 0.0);
  size_t count = 0;
  while (count < ranked.size() && (count == 0 || kept < wanted)) kept += row[cols.first + ranked[count++]];
  ranked.resize(count);
  return ranked;
}

}  // namespace

int64_t kept_of(int64_t blocks, double sparsity) {
  const double kept = std::floor((1 - sparsity) * static_cast<double>(blocks) + 0.5 + 1e-9);
  return std::clamp<int64_t>(static_cast<int64_t>(kept), 1, std::max<int64_t>(blocks, 1));
}

std::vector<double> head_recalls(const MassBlocks& blocks, int64_t count) {
  const int64_t heads = blocks.mass.size(0), rows = blocks.video_rows.size();
  const BlockRange& cols = blocks.video_cols;
  std::vector<double> kept(static_cast<size_t>(heads * rows)), total(kept.size());
  for_video_rows(blocks, [&](int64_t head, int64_t row, const float* mass) {
    const auto i = static_cast<size_t>(head * rows + row - blocks.video_rows.first);
    total[i] = std::accumulate(mass, mass + blocks.mass.size(2), 0.0);
    kept[i] = text_mass(blocks, mass);
    for (const int32_t j : best_indices(mass + cols.first, cols.size(), count)) kept[i] += mass[cols.first + j];
  });
  std::vector<double> recalls;
  for (int64_t h = 0; h < heads; ++h) {
    const auto sum = [&](const std::vector<double>& of_rows) {
      return std::accumulate(of_rows.begin() + h * rows, of_rows.begin() + (h + 1) * rows, 0.0);
    };
    recalls.push_back(sum(kept) / sum(total));
  }
  return recalls;
}

std::vector<double> head_sparsities(const std::vector<double>& recalls, const MassRule& rule) {
  const size_t heads = recalls.size();
  const auto above = std::count_if(recalls.begin(), recalls.end(), [&](double r) { return r > rule.recall; });
  const size_t count = std::min(static_cast<size_t>(above), heads / 2);
  std::vector<size_t> order(heads);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return recalls[a] > recalls[b]; });
  const double s = rule.sparsity;
  const bool is_clamped = 3 * s < 1;
  std::vector<double> sparsities(heads, s);
  for (size_t i = 0; i < count; ++i) {
    sparsities[order[i]] = is_clamped ? 2 * s : (1 + s) / 2;
    sparsities[order[heads - 1 - i]] = is_clamped ? 0 : (3 * s - 1) / 2;
  }
  return sparsities;
}

void select_by_mass(const MassBlocks& blocks, const MassRule& rule, BlockLayout& layout) {
  const BlockRange &rows = blocks.video_rows, &cols = blocks.video_cols;
  const int64_t heads = blocks.mass.size(0), query_blocks = blocks.mass.size(1), key_blocks = blocks.mass.size(2);
  std::vector<int64_t> counts;
  if (!rule.is_by_mass && rows.size() > 0) {
    for (const double s : head_sparsities(head_recalls(blocks, kept_of(cols.size(), rule.sparsity)), rule)) {
      counts.push_back(kept_of(cols.size(), s));
    }
  }
  for_video_rows(blocks, [&](int64_t head, int64_t row, const float* mass) {
    keep_blocks(layout, head, row, cols.first,
                rule.is_by_mass ? prefix_of_mass(blocks, rule.theta, mass)
                                : best_indices(mass + cols.first, cols.size(), counts[static_cast<size_t>(head)]));
    layout.set_range(head, row, 0, cols.first);
    layout.set_range(head, row, cols.end, key_blocks);
  });
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < query_blocks; ++i) {
      if (!rows.contains(i)) layout.set_row(h, i);
    }
  }
}

}  // namespace strobe::attention
