#include "kernels/block_score/tiled_scores.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "kernels/block_attention/packed_keys.h"
#include "kernels/block_attention/tile_buffers.h"
#include "kernels/common/parallel.h"

namespace strobe::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rows that one worker takes at a time.
struct RowRange {
  int32_t first = 0, rows = 0;
  int32_t first_block = 0, end_block = 0;  // query blocks, for masses
};

struct WorkerMemory {
  TileBuffers buffers;
  std::vector<float> group_maxima;  // [kTileRows, kStageGroups]
};

// All keys of a (batch row, key head): records, and the key block of each.
struct KeyList {
  std::vector<const char*> records;
  std::vector<int32_t> blocks;
};

template <class Params>
KeySource key_source(const Params& params) {
  KeySource source;
  source.dtype = params.dtype;
  source.batch = params.batch;
  source.key_heads = params.key_heads;
  source.key_tokens = params.key_tokens;
  source.head_dim = params.head_dim;
  source.k = params.k;
  source.key_bias = params.key_bias;
  source.key_blocks = params.key_blocks;
  source.key_offsets = params.key_offsets;
  return source;
}

KeyList list_keys(const PackedKeys& packed, int pair, int32_t key_blocks) {
  KeyList list;
  for (int32_t block = 0; block < key_blocks; ++block) {
    const int32_t count = packed.record_count(pair, 0, block);
    for (int32_t i = 0; i < count; ++i) {
      list.records.push_back(packed.record(pair, 0, block) + i * packed.shape().bytes);
      list.blocks.push_back(block);
    }
  }
  return list;
}

// q of rows [first, first + tile.rows) of one head, packed.
template <class Params>
void pack_rows(const TileOps& tiles, const Params& params, int32_t batch_row, int32_t head, int32_t first,
               TileBuffers& buffers, const Tile& tile) {
  float scales[kTileRows];
  std::fill_n(scales, tile.rows, static_cast<float>(params.scale * 1.4426950408889634));
  const int64_t size = params.dtype == ScalarType::kFloat32 ? 4 : 2;
  const char* q = static_cast<const char*>(params.q.data) +
                  (batch_row * params.q.batch_stride + head * params.q.head_stride) * size;
  buffers.pack_queries(tiles, params.dtype, q, params.q.token_stride, first, nullptr, scales, tile);
}

// visit(first record, count) after each stage's scores.
template <class Visit>
void walk(const TileOps& tiles, const KeyList& keys, const Tile& tile, Visit visit) {
  const size_t per_stage = kStageKeys / tiles.group_keys, total = keys.records.size();
  for (size_t at = 0; at < total; at += per_stage) {
    Stage stage;
    stage.records = keys.records.data() + at;
    stage.count = static_cast<int>(std::min(per_stage, total - at));
    stage.next = stage.records + stage.count;
    stage.next_count = static_cast<int>(std::min(per_stage, total - at - stage.count));
    tiles.scores(tile, stage);
    visit(at, stage.count);
  }
}

// Packs pair by pair within the memory bound and calls compute(worker memory, batch row, head, keys, range) for every
// range of every head, on all workers.
template <class Params, class Compute>
void for_each_range(const TileOps& tiles, const Params& params, const std::vector<RowRange>& ranges, Compute compute) {
  if (params.batch == 0 || params.heads == 0 || params.query_tokens == 0) return;
  thread_local PackedKeys packed_memory;
  PackedKeys& packed = packed_memory;
  const std::vector<uint8_t> used(static_cast<size_t>(kPlanes) * params.key_blocks, 1);
  packed.plan(tiles, key_source(params), used, 1);
  const int workers = std::max(params.parallel.workers, 1);
  const int32_t group = params.heads / params.key_heads;
  std::vector<KeyList> lists;
  for (int first = 0; first < packed.pairs();) {
    const int end = packed.place(first);
    packed.pack(first, end, params.parallel);
    lists.clear();
    for (int pair = first; pair < end; ++pair) lists.push_back(list_keys(packed, pair, params.key_blocks));
    const int64_t units = int64_t{end - first} * group * static_cast<int64_t>(ranges.size());
    std::atomic<int64_t> next_unit{0};
    auto work = [&](int /*worker*/) {
      thread_local WorkerMemory memory;
      for (int64_t i = next_unit.fetch_add(1); i < units; i = next_unit.fetch_add(1)) {
        const auto size = static_cast<int64_t>(ranges.size());
        const int pair = first + static_cast<int>(i / size / group);
        const auto head = static_cast<int32_t>(pair % params.key_heads * group + i / size % group);
        compute(memory, packed.shape(), pair / params.key_heads, head, lists[pair - first], ranges[i % size]);
      }
    };
    run_tasks(params.parallel, workers, work);
    first = end;
  }
}

// A tile's row sums in natural units.
float sum_lanes(const TileOps& tiles, const Tile& tile, int row) {
  float sum = 0;
  for (int c = 0; c < tiles.lanes; ++c) sum += tile.l[int64_t{row} * tiles.lanes + c];
  return sum;
}

// Whole query blocks in a range, so that no two workers add to one mass: as many as fit in a tile, or one larger.
std::vector<RowRange> whole_blocks(const BlockMassParams& params) {
  std::vector<RowRange> ranges;
  for (int32_t m = 0; m < params.query_blocks; ++m) {
    const int32_t begin = params.query_offsets[m], rows = params.query_offsets[m + 1] - begin;
    if (!ranges.empty() && ranges.back().rows + rows <= kTileRows) {
      ranges.back().rows += rows;
      ranges.back().end_block = m + 1;
    } else {
      ranges.push_back({begin, rows, m, m + 1});
    }
  }
  return ranges;
}

class MassWorker {
 public:
  MassWorker(const TileOps& tiles, const ScoreOps& ops, const BlockMassParams& params, const KeyList& keys)
      : tiles_(tiles), ops_(ops), params_(params), keys_(keys) {}

  void run(WorkerMemory& memory, const RecordShape& shape, int32_t batch_row, int32_t head, const RowRange& range) {
    const int64_t place = int64_t{batch_row} * params_.heads + head;
    float* mass = params_.mass + (place * params_.query_blocks + range.first_block) * params_.key_blocks;
    std::fill_n(mass, int64_t{range.end_block - range.first_block} * params_.key_blocks, 0.0F);
    Tile tile = memory.buffers.prepare(tiles_, shape, 0);
    for (int32_t done = 0; done < range.rows; done += tile.rows) {
      const int32_t first = range.first + done;
      tile.rows = std::min(kTileRows, range.rows - done);
      clear_state(tiles_, tile);
      // Finite, so that a hidden score minus the lse of an empty row is no NaN.
      const float* lse = params_.lse + place * params_.query_tokens + first;
      for (int i = 0; i < tile.rows; ++i) tile.m[i] = std::max(lse[i] * kLog2E, kLowestMaximum);
      pack_rows(tiles_, params_, batch_row, head, first, memory.buffers, tile);
      walk(tiles_, keys_, tile, [&](size_t at, int count) { add_stage(tile, range, first, at, count, mass); });
      for (int i = 0; i < tile.rows && params_.row_sum; ++i) {
        params_.row_sum[place * params_.query_tokens + first + i] = sum_lanes(tiles_, tile, i);
      }
    }
  }

 private:
  void add_stage(const Tile& tile, const RowRange& range, int32_t first_row, size_t at, int count, float* mass) const {
    float columns[kStageKeys];
    for (int32_t m = range.first_block; m < range.end_block; ++m) {
      const int first = std::max(params_.query_offsets[m] - first_row, 0);
      const int end = std::min(params_.query_offsets[m + 1] - first_row, tile.rows);
      if (first >= end) continue;
      ops_.mass(tile, count, first, end, columns);
      float* row = mass + int64_t{m - range.first_block} * params_.key_blocks;
      for (int g = 0; g < count; ++g) {
        float sum = 0;
        for (int c = 0; c < tiles_.group_keys; ++c) sum += columns[g * tiles_.group_keys + c];
        row[keys_.blocks[at + g]] += sum;
      }
    }
  }

  const TileOps& tiles_;
  const ScoreOps& ops_;
  const BlockMassParams& params_;
  const KeyList& keys_;
};

// The maxima of groups to those of their blocks; a block may go on from the stage before.
void merge_maxima(const KeyList& keys, size_t at, int count, const float* groups, float* blocks) {
  for (int g = 0; g < count;) {
    const int32_t block = keys.blocks[at + g];
    float top = groups[g];
    for (++g; g < count && keys.blocks[at + g] == block; ++g) top = std::max(top, groups[g]);
    blocks[block] = std::max(blocks[block], top * kLn2);
  }
}

}  // namespace

void run_tiled_mass(const TileOps& tiles, const ScoreOps& ops, const BlockMassParams& params) {
  for_each_range(
      tiles, params, whole_blocks(params),
      [&](WorkerMemory& memory, const RecordShape& shape, int32_t batch_row, int32_t head, const KeyList& keys,
          const RowRange& range) { MassWorker(tiles, ops, params, keys).run(memory, shape, batch_row, head, range); });
}

void run_tiled_maxima(const TileOps& tiles, const ScoreOps& ops, const BlockMaxParams& params) {
  std::vector<RowRange> ranges;
  for (int32_t first = 0; first < params.query_tokens; first += kTileRows) {
    ranges.push_back({first, std::min(kTileRows, params.query_tokens - first), 0, 0});
  }
  for_each_range(tiles, params, ranges,
                 [&](WorkerMemory& memory, const RecordShape& shape, int32_t batch_row, int32_t head,
                     const KeyList& keys, const RowRange& range) {
                   const int64_t row = (int64_t{batch_row} * params.heads + head) * params.query_tokens + range.first;
                   float* maxima = params.maxima + row * params.key_blocks;
                   std::fill_n(maxima, int64_t{range.rows} * params.key_blocks, -kInfinity);
                   memory.group_maxima.resize(static_cast<size_t>(kTileRows) * kStageGroups);
                   float* groups = memory.group_maxima.data();
                   Tile tile = memory.buffers.prepare(tiles, shape, 0);
                   tile.rows = range.rows;
                   clear_state(tiles, tile);
                   pack_rows(tiles, params, batch_row, head, range.first, memory.buffers, tile);
                   walk(tiles, keys, tile, [&](size_t at, int count) {
                     ops.maxima(tile, count, params.row_sum_exp != nullptr, groups);
                     for (int i = 0; i < tile.rows; ++i) {
                       merge_maxima(keys, at, count, groups + int64_t{i} * kStageGroups,
                                    maxima + int64_t{i} * params.key_blocks);
                     }
                   });
                   for (int i = 0; i < tile.rows && params.row_sum_exp; ++i) {
                     params.row_sum_exp[row + i] = sum_lanes(tiles, tile, i);
                   }
                 });
}

}  // namespace strobe::kernels
