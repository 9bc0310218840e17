#include "kernels/block_attention/tiled_attention.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/block_attention/packed_keys.h"
#include "kernels/block_attention/tile_buffers.h"
#include "kernels/block_attention/work_plan.h"
#include "kernels/common/parallel.h"

namespace strobe::kernels {
namespace {

using RowMask = std::array<uint64_t, 2>;
static_assert(kTileRows == 128, "a RowMask has two words");

// What a worker keeps between calls.
struct WorkerMemory {
  TileBuffers buffers;
  std::vector<const char*> records;  // what the tile walks
  std::vector<int32_t> mask_of;      // of each record: index into `masks`, -1 for all rows; empty: no masks
  std::vector<RowMask> masks;
  std::vector<int32_t> places;  // gathered rows
};

struct CallMemory {
  PackedKeys packed;
  WorkPlan plan;
  DenseLayout dense;
};

// Rows of one (batch row, head) that a work item computes.
struct Unit {
  int pair = 0;  // batch row and key head
  int32_t batch_row = 0, head = 0, layout_head = 0;
  const WorkItem* item = nullptr;
};

class TileWorker {
 public:
  TileWorker(const TileOps& ops, const BlockAttentionParams& params, const BlockLayoutView& layout,
             const PackedKeys& packed, WorkerMemory& memory)
      : ops_(ops), params_(params), layout_(layout), packed_(packed), memory_(memory) {}

  void run(const Unit& unit) {
    unit_ = unit;
    const WorkItem& item = *unit.item;
    if (item.kind == WorkItem::Kind::kGather) {
      run_gathered();
      return;
    }
    Tile tile = memory_.buffers.prepare(ops_, packed_.shape(), 0);
    tile.rows = item.rows;
    clear_state(ops_, tile);
    if (item.kind == WorkItem::Kind::kUnion) {
      list_union();
    } else {
      list_row(item.first_block);
    }
    if (!memory_.records.empty()) {
      pack_queries(item.first_row, nullptr, tile);
      walk(tile);
    }
    finish(item.first_row, tile);
  }

 private:
  void clear_list() {
    memory_.records.clear();
    memory_.mask_of.clear();
    memory_.masks.clear();
  }

  void append(int plane, int32_t block) {
    const int32_t count = packed_.record_count(unit_.pair, plane, block);
    if (count == 0) return;
    const char* record = packed_.record(unit_.pair, plane, block);
    for (int32_t i = 0; i < count; ++i) memory_.records.push_back(record + i * packed_.shape().bytes);
  }

  const uint64_t* bits_of(int plane, int32_t m) const { return layout_row(layout_, plane, unit_.layout_head, m); }

  // What block m keeps, ascending; pooling levels mixed.
  void list_row(int32_t m) {
    clear_list();
    for (int32_t w = 0; w < layout_.words; ++w) {
      uint64_t rows[kPlanes] = {}, any = 0;
      for (int plane = 0; plane < kPlanes; ++plane) {
        if (const uint64_t* bits = bits_of(plane, m)) any |= rows[plane] = bits[w];
      }
      for (; any != 0; any &= any - 1) {
        const int bit = __builtin_ctzll(any);
        for (int plane = 0; plane < kPlanes; ++plane) {
          if ((rows[plane] >> bit & 1) != 0) append(plane, w * 64 + bit);
        }
      }
    }
  }

  // What any row of the item keeps, with the mask of rows where not all do.
  void list_union() {
    clear_list();
    const WorkItem& item = *unit_.item;
    for (int32_t w = 0; w < layout_.words; ++w) {
      uint64_t rows[kPlanes] = {}, any = 0;
      for (int plane = 0; plane < kPlanes; ++plane) {
        for (int32_t m = item.first_block; m < item.end_block && bits_of(plane, m); ++m) {
          rows[plane] |= bits_of(plane, m)[w];
        }
        any |= rows[plane];
      }
      for (; any != 0; any &= any - 1) {
        const int bit = __builtin_ctzll(any);
        for (int plane = 0; plane < kPlanes; ++plane) {
          if ((rows[plane] >> bit & 1) == 0) continue;
          append(plane, w * 64 + bit);
          add_mask(plane, w, bit);
        }
      }
    }
  }

  void add_mask(int plane, int32_t word, int bit) {
    const WorkItem& item = *unit_.item;
    RowMask mask = {};
    int32_t kept = 0;
    for (int32_t m = item.first_block; m < item.end_block; ++m) {
      if ((bits_of(plane, m)[word] >> bit & 1) == 0) continue;
      const int32_t begin = std::max(layout_.query_offsets[m] - item.first_row, 0);
      const int32_t end = std::min(layout_.query_offsets[m + 1] - item.first_row, item.rows);
      for (int32_t row = begin; row < end; ++row) mask[row / 64] |= uint64_t{1} << (row % 64);
      kept += end - begin;
    }
    memory_.mask_of.resize(memory_.records.size(), kept == item.rows ? -1 : static_cast<int32_t>(memory_.masks.size()));
    if (kept != item.rows) memory_.masks.push_back(mask);
  }

  // -inf for the rows that do not keep a record's block.
  void hide_rows(const Tile& tile, size_t first, int count) const {
    for (int i = 0; i < count; ++i) {
      const int32_t index = memory_.mask_of[first + i];
      if (index < 0) continue;
      const RowMask& mask = memory_.masks[index];
      for (int row = 0; row < tile.rows; ++row) {
        if ((mask[row / 64] >> (row % 64) & 1) != 0) continue;
        std::fill_n(tile.s + int64_t{row} * kScoreStride + i * ops_.group_keys, ops_.group_keys,
                    -std::numeric_limits<float>::infinity());
      }
    }
  }

  void walk(const Tile& tile) {
    const size_t per_stage = kStageKeys / ops_.group_keys;
    const size_t total = memory_.records.size();
    for (size_t at = 0; at < total; at += per_stage) {
      Stage stage;
      stage.records = memory_.records.data() + at;
      stage.count = static_cast<int>(std::min(per_stage, total - at));
      stage.next = stage.records + stage.count;
      stage.next_count = static_cast<int>(std::min(per_stage, total - at - stage.count));
      ops_.scores(tile, stage);
      if (!memory_.masks.empty()) hide_rows(tile, at, stage.count);
      ops_.softmax(tile, stage);
      if (tile.shape.panels > 0) ops_.values(tile, stage);
    }
  }

  float row_scale(int32_t token) const {
    const double factor = params_.row_scale ? params_.row_scale[token] : 1.0;
    return static_cast<float>(params_.scale * factor * 1.4426950408889634);
  }

  int32_t token_at(int32_t place) const { return params_.query_order ? params_.query_order[place] : place; }

  // Rows at `places`, or at those from `first` on.
  void pack_queries(int32_t first, const int32_t* places, const Tile& tile) {
    float scales[kTileRows];
    int32_t tokens[kTileRows];
    for (int i = 0; i < tile.rows; ++i) {
      tokens[i] = token_at(places ? places[i] : first + i);
      scales[i] = row_scale(tokens[i]);
    }
    const int64_t size = params_.dtype == ScalarType::kFloat32 ? 4 : 2;
    const char* q = static_cast<const char*>(params_.q.data) +
                    (unit_.batch_row * params_.q.batch_stride + unit_.head * params_.q.head_stride) * size;
    memory_.buffers.pack_queries(ops_, params_.dtype, q, params_.q.token_stride, tokens, scales, tile);
  }

  void finish(int32_t first, const Tile& tile) const {
    if (params_.lse) {
      float* lse = params_.lse + (int64_t{unit_.batch_row} * params_.heads + unit_.head) * params_.query_tokens;
      for (int i = 0; i < tile.rows; ++i) {
        float sum = 0;
        for (int c = 0; c < ops_.lanes; ++c) sum += tile.l[int64_t{i} * ops_.lanes + c];
        lse[token_at(first + i)] =
            sum == 0 ? -std::numeric_limits<float>::infinity() : (tile.m[i] + std::log2(sum)) * kLn2;
      }
    }
    if (tile.shape.panels == 0) return;
    const bool is_bf16 = params_.dtype == ScalarType::kBFloat16;
    void* rows[kTileRows];
    for (int i = 0; i < tile.rows; ++i) {
      const int64_t at = unit_.batch_row * params_.out.batch_stride + unit_.head * params_.out.head_stride +
                         token_at(first + i) * params_.out.token_stride;
      rows[i] = static_cast<char*>(params_.out.data) + at * (is_bf16 ? 2 : 4);
    }
    ops_.finish(tile, rows, is_bf16);
  }

  // The running state of gathered rows, by row of the item.
  struct State {
    float* m;  // [rows]
    float* l;  // [rows, lanes]
    float* o;  // [rows, panels, kPanel]
  };

  void move_state(const Tile& tile, const State& state, const int32_t* rows, bool to_tile) const {
    const size_t panel_bytes = sizeof(float) * kPanel, sum_bytes = sizeof(float) * ops_.lanes;
    for (int i = 0; i < tile.rows; ++i) {
      const int64_t row = rows[i];
      float* sum = state.l + row * ops_.lanes;
      float* tile_sum = tile.l + int64_t{i} * ops_.lanes;
      if (to_tile) {
        tile.m[i] = state.m[row];
        std::memcpy(tile_sum, sum, sum_bytes);
      } else {
        state.m[row] = tile.m[i];
        std::memcpy(sum, tile_sum, sum_bytes);
      }
      for (int panel = 0; panel < tile.shape.panels; ++panel) {
        float* out = state.o + (row * tile.shape.panels + panel) * kPanel;
        float* tile_out = tile.o + (int64_t{panel} * kTileRows + i) * kPanel;
        std::memcpy(to_tile ? tile_out : out, to_tile ? out : tile_out, panel_bytes);
      }
    }
  }

  void run_gathered() {
    const WorkItem& item = *unit_.item;
    const int64_t row_floats = 1 + ops_.lanes + int64_t{packed_.shape().panels} * kPanel;
    Tile tile = memory_.buffers.prepare(ops_, packed_.shape(), item.rows * row_floats * 4);
    State state = {};
    state.o = static_cast<float*>(memory_.buffers.extra());
    state.l = state.o + int64_t{item.rows} * packed_.shape().panels * kPanel;
    state.m = state.l + int64_t{item.rows} * ops_.lanes;
    std::fill_n(state.o, item.rows * (row_floats - 1), 0.0F);
    std::fill_n(state.m, item.rows, kLowestMaximum);
    for (int32_t block = 0; block < layout_.key_blocks; ++block) {
      for (int plane = 0; plane < kPlanes; ++plane) {
        if (layout_.planes[plane]) run_gathered_piece(plane, block, state, tile);
      }
    }
    int32_t rows[kTileRows];
    for (int32_t first = 0; first < item.rows; first += kTileRows) {
      tile.rows = std::min(kTileRows, item.rows - first);
      for (int i = 0; i < tile.rows; ++i) rows[i] = first + i;
      move_state(tile, state, rows, /*to_tile=*/true);
      finish(item.first_row + first, tile);
    }
  }

  void run_gathered_piece(int plane, int32_t block, const State& state, Tile& tile) {
    const WorkItem& item = *unit_.item;
    std::vector<int32_t>& places = memory_.places;
    places.clear();
    const uint64_t* bits = bits_of(plane, item.first_block) + block / 64;
    for (int32_t m = item.first_block; m < item.end_block; ++m, bits += layout_.words) {
      if ((*bits >> (block % 64) & 1) == 0) continue;
      for (int32_t t = layout_.query_offsets[m]; t < layout_.query_offsets[m + 1]; ++t) places.push_back(t);
    }
    if (places.empty()) return;
    clear_list();
    append(plane, block);
    if (memory_.records.empty()) return;
    const int32_t total = static_cast<int32_t>(places.size());
    const int32_t parts = (total + kTileRows - 1) / kTileRows;
    const int32_t size = (total + parts - 1) / parts;
    int32_t rows[kTileRows];
    for (int32_t first = 0; first < total; first += size) {
      tile.rows = std::min(size, total - first);
      for (int i = 0; i < tile.rows; ++i) rows[i] = places[first + i] - item.first_row;
      move_state(tile, state, rows, /*to_tile=*/true);
      pack_queries(0, places.data() + first, tile);
      walk(tile);
      move_state(tile, state, rows, /*to_tile=*/false);
    }
  }

  const TileOps& ops_;
  const BlockAttentionParams& params_;
  const BlockLayoutView& layout_;
  const PackedKeys& packed_;
  WorkerMemory& memory_;
  Unit unit_;
};

KeySource key_source(const BlockAttentionParams& params, const BlockLayoutView& layout) {
  KeySource source;
  source.dtype = params.dtype;
  source.batch = params.batch;
  source.key_heads = params.key_heads;
  source.key_tokens = params.key_tokens;
  source.head_dim = params.head_dim;
  source.k = params.k;
  source.v = params.v;
  source.key_bias = params.key_bias;
  source.bias_stride = params.key_tokens;
  source.order = params.key_order;
  source.key_blocks = layout.key_blocks;
  source.key_offsets = layout.key_offsets;
  source.has_multiplicity_bias = params.has_multiplicity_bias;
  source.replicates_tail = params.replicates_tail;
  source.replicated_size = params.replicated_size;
  return source;
}

}  // namespace

void run_tiled_attention(const TileOps& ops, const BlockAttentionParams& params) {
  if (params.batch == 0 || params.heads == 0 || params.query_tokens == 0) return;
  thread_local CallMemory call;
  if (!params.layout) call.dense.make(params.query_tokens, params.key_tokens);
  const BlockLayoutView& layout = params.layout ? *params.layout : call.dense.view;
  const KeySource source = key_source(params, layout);
  plan_work(layout, source, params.heads, call.plan);
  call.packed.plan(ops, source, call.plan.used, call.plan.used_tables);

  const PackedKeys& packed = call.packed;
  const int32_t group = params.heads / params.key_heads;
  const int workers = std::max(params.parallel.workers, 1);
  std::vector<Unit> units;
  for (int first = 0; first < packed.pairs();) {
    const int end = call.packed.place(first);
    packed.pack(first, end, params.parallel);
    units.clear();
    for (int pair = first; pair < end; ++pair) {
      for (int32_t i = 0; i < group; ++i) {
        Unit unit;
        unit.pair = pair;
        unit.batch_row = pair / params.key_heads;
        unit.head = pair % params.key_heads * group + i;
        unit.layout_head = layout.heads == 1 ? 0 : unit.head;
        for (const WorkItem& item : call.plan.heads[unit.layout_head]) {
          unit.item = &item;
          units.push_back(unit);
        }
      }
    }
    std::atomic<size_t> next_unit{0};
    auto walk = [&](int /*worker*/) {
      thread_local WorkerMemory memory;
      TileWorker worker(ops, params, layout, packed, memory);
      for (size_t i = next_unit.fetch_add(1); i < units.size(); i = next_unit.fetch_add(1)) worker.run(units[i]);
    };
    run_tasks(params.parallel, workers, walk);
    first = end;
  }
}

}  // namespace strobe::kernels
