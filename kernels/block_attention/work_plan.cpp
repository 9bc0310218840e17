#include "kernels/block_attention/work_plan.h"

#include <algorithm>
#include <cstring>

namespace strobe::kernels {
namespace {

// Cost model, in score elements. A tile pays for reading its keys as if it had two more rows, and cannot use the FMA
// units with fewer than four; a gathered row pays for packing q and for moving its state.
constexpr double kTileRowsExtra = 2;
constexpr double kFewestRows = 4;
constexpr double kGatheredRowKeys = 12;
constexpr int32_t kShortTile = 48;     // rows: below it, other ways than runs are looked at
constexpr int32_t kGatherRows = 1024;  // of an item

double tile_cost(double rows, double keys) { return (std::max(rows, kFewestRows) + kTileRowsExtra) * keys; }

class HeadPlanner {
 public:
  HeadPlanner(const BlockLayoutView& layout, const std::vector<int32_t>& keys, int32_t head)
      : layout_(layout), keys_(keys), head_(head) {}

  std::vector<WorkItem> plan() {
    find_runs();
    double cost = 0, pairs = 0;
    int64_t rows = 0;
    for (const WorkItem& run : runs_) {
      cost += run.cost;
      rows += run.rows;
      pairs += run.rows * row_keys(run.first_block);
    }
    const bool is_short = rows < static_cast<int64_t>(runs_.size()) * kShortTile;
    std::vector<WorkItem> best = runs_;
    if (is_short && cost > 1.05 * pairs) {
      double other = 0;
      std::vector<WorkItem> items = unions(&other);
      if (other < cost) {
        cost = other;
        best.swap(items);
      }
      items = gathers(&other);
      if (other < cost) best.swap(items);
    }
    std::stable_sort(best.begin(), best.end(), [](const WorkItem& a, const WorkItem& b) { return a.cost > b.cost; });
    return best;
  }

 private:
  int32_t row_begin(int32_t m) const { return layout_.query_offsets[m]; }

  bool rows_equal(int32_t a, int32_t b) const {
    for (int plane = 0; plane < kPlanes; ++plane) {
      if (!layout_.planes[plane]) continue;
      const size_t bytes = sizeof(uint64_t) * layout_.words;
      if (std::memcmp(layout_row(layout_, plane, head_, a), layout_row(layout_, plane, head_, b), bytes) != 0) {
        return false;
      }
    }
    return true;
  }

  // visit(plane, block) for each set bit of row m; `known`, if given, is [planes, words]: only bits not in it.
  template <class Visit>
  void for_each_block(int32_t m, const uint64_t* known, Visit visit) const {
    for (int plane = 0; plane < kPlanes; ++plane) {
      const uint64_t* row = layout_row(layout_, plane, head_, m);
      if (!row) continue;
      for (int32_t w = 0; w < layout_.words; ++w) {
        uint64_t bits = known ? row[w] & ~known[plane * layout_.words + w] : row[w];
        for (; bits != 0; bits &= bits - 1) visit(plane, w * 64 + __builtin_ctzll(bits));
      }
    }
  }

  double row_keys(int32_t m) const {
    double keys = 0;
    for_each_block(m, nullptr, [&](int plane, int32_t block) { keys += keys_[plane * layout_.key_blocks + block]; });
    return keys;
  }

  // Runs of blocks with equal rows, cut evenly into tiles.
  void find_runs() {
    for (int32_t m = 0; m < layout_.query_blocks;) {
      int32_t end = m + 1;
      while (end < layout_.query_blocks && rows_equal(m, end)) ++end;
      const int32_t rows = row_begin(end) - row_begin(m);
      const int32_t parts = (rows + kTileRows - 1) / kTileRows;
      const double keys = row_keys(m);
      int32_t block = m;
      for (int32_t part = 0, done = 0; part < parts; ++part) {
        WorkItem item;
        item.rows = std::min((rows + parts - 1) / parts, rows - done);
        item.first_row = row_begin(m) + done;
        while (row_begin(block + 1) <= item.first_row) ++block;
        item.first_block = block;
        done += item.rows;
        while (row_begin(block + 1) < row_begin(m) + done) ++block;
        item.end_block = block + 1;
        item.cost = tile_cost(item.rows, keys);
        if (item.rows > 0) runs_.push_back(item);
      }
      m = end;
    }
  }

  std::vector<WorkItem> unions(double* total) const {
    std::vector<WorkItem> items;
    std::vector<uint64_t> known(static_cast<size_t>(kPlanes) * layout_.words);
    double keys = 0;
    *total = 0;
    for (const WorkItem& run : runs_) {
      double added = 0;
      if (!items.empty()) {
        for_each_block(run.first_block, known.data(),
                       [&](int plane, int32_t block) { added += keys_[plane * layout_.key_blocks + block]; });
        WorkItem& last = items.back();
        const double merged = tile_cost(last.rows + run.rows, keys + added);
        if (last.rows + run.rows <= kTileRows && merged <= last.cost + run.cost) {
          last.kind = WorkItem::Kind::kUnion;
          last.rows += run.rows;
          last.end_block = run.end_block;
          *total += merged - last.cost;
          last.cost = merged;
          keys += added;
          add_bits(run.first_block, known);
          continue;
        }
      }
      items.push_back(run);
      *total += run.cost;
      keys = row_keys(run.first_block);
      std::fill(known.begin(), known.end(), 0);
      add_bits(run.first_block, known);
    }
    return items;
  }

  void add_bits(int32_t m, std::vector<uint64_t>& known) const {
    for_each_block(m, nullptr, [&](int plane, int32_t block) {
      known[plane * layout_.words + block / 64] |= uint64_t{1} << (block % 64);
    });
  }

  std::vector<WorkItem> gathers(double* total) const {
    std::vector<WorkItem> items;
    std::vector<int32_t> rows(static_cast<size_t>(kPlanes) * layout_.key_blocks);
    *total = 0;
    for (int32_t m = 0; m < layout_.query_blocks;) {
      WorkItem item;
      item.kind = WorkItem::Kind::kGather;
      item.first_block = m;
      item.first_row = row_begin(m);
      std::fill(rows.begin(), rows.end(), 0);
      for (; m < layout_.query_blocks && item.rows < kGatherRows; ++m) {
        const int32_t length = row_begin(m + 1) - row_begin(m);
        item.rows += length;
        for_each_block(m, nullptr,
                       [&](int plane, int32_t block) { rows[plane * layout_.key_blocks + block] += length; });
      }
      item.end_block = m;
      for (size_t i = 0; i < rows.size(); ++i) {
        for (int32_t left = rows[i]; left > 0; left -= kTileRows) {
          const int32_t n = std::min(left, kTileRows);
          item.cost += tile_cost(n, keys_[i]) + n * kGatheredRowKeys;
        }
      }
      *total += item.cost;
      if (item.rows > 0) items.push_back(item);
    }
    return items;
  }

  const BlockLayoutView& layout_;
  const std::vector<int32_t>& keys_;  // [planes, blocks]: rows of each piece
  int32_t head_;
  std::vector<WorkItem> runs_;
};

void note_used(const BlockLayoutView& layout, int32_t heads, int32_t key_heads, WorkPlan& plan) {
  plan.used_tables = layout.heads == 1 ? 1 : key_heads;
  const int64_t table_size = int64_t{kPlanes} * layout.key_blocks;
  plan.used.assign(plan.used_tables * table_size, 0);
  std::vector<uint64_t> any(layout.words);
  for (int t = 0; t < plan.used_tables; ++t) {
    const int32_t group = layout.heads == 1 ? 1 : heads / key_heads;
    for (int plane = 0; plane < kPlanes; ++plane) {
      if (!layout.planes[plane]) continue;
      std::fill(any.begin(), any.end(), 0);
      const uint64_t* row = layout_row(layout, plane, t * group, 0);
      for (int64_t m = 0; m < int64_t{group} * layout.query_blocks; ++m, row += layout.words) {
        for (int32_t w = 0; w < layout.words; ++w) any[w] |= row[w];
      }
      for (int32_t block = 0; block < layout.key_blocks; ++block) {
        plan.used[t * table_size + plane * int64_t{layout.key_blocks} + block] = any[block / 64] >> (block % 64) & 1;
      }
    }
  }
}

}  // namespace

void DenseLayout::make(int32_t query_tokens, int32_t key_tokens) {
  constexpr int32_t kBlock = 64;
  const int32_t blocks = (key_tokens + kBlock - 1) / kBlock;
  query_offsets = {0, query_tokens};
  key_offsets.resize(blocks + 1);
  for (int32_t j = 0; j <= blocks; ++j) key_offsets[j] = std::min(j * kBlock, key_tokens);
  row.assign((blocks + 63) / 64, ~uint64_t{0});
  if (blocks % 64 != 0) row.back() = (uint64_t{1} << (blocks % 64)) - 1;
  view = BlockLayoutView();
  view.query_blocks = 1;
  view.key_blocks = blocks;
  view.words = static_cast<int32_t>(row.size());
  view.query_offsets = query_offsets.data();
  view.key_offsets = key_offsets.data();
  view.planes[0] = row.data();
}

void plan_work(const BlockLayoutView& layout, const KeySource& source, int32_t heads, WorkPlan& plan) {
  std::vector<int32_t> keys(static_cast<size_t>(kPlanes) * layout.key_blocks);
  for (int plane = 0; plane < kPlanes; ++plane) {
    for (int32_t block = 0; block < layout.key_blocks; ++block) {
      keys[plane * layout.key_blocks + block] = piece_rows(source, block, plane);
    }
  }
  plan.heads.resize(layout.heads);
  for (int32_t h = 0; h < layout.heads; ++h) plan.heads[h] = HeadPlanner(layout, keys, h).plan();
  note_used(layout, heads, source.key_heads, plan);
}

}  // namespace strobe::kernels
