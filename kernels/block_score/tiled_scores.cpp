#include "kernels/block_score/tiled_scores.h"

#include <algorithm>
#include <atomic>
#include <cmath>
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
  std::vector<float> maxima;  // [kTileRows, stride] of importance
  std::vector<float> best;    // [blocks of a range, stride]
};

// All keys of a (batch row, key head): records, and the key block of each. Blocks whose keys are all hidden have none.
struct KeyList {
  std::vector<const char*> records;
  std::vector<int32_t> blocks;
  std::vector<int32_t> places;   // index into `visible` of each record's block
  std::vector<int32_t> visible;  // blocks with records
};

KeySource key_source(const BlockMassParams& params) {
  KeySource source;
  source.dtype = params.dtype;
  source.batch = params.batch;
  source.key_heads = params.key_heads;
  source.key_tokens = params.key_tokens;
  source.head_dim = params.head_dim;
  source.k = params.k;
  source.key_bias = params.key_bias;
  source.bias_stride = params.key_tokens;
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
      list.places.push_back(static_cast<int32_t>(list.visible.size()));
    }
    if (count > 0) list.visible.push_back(block);
  }
  return list;
}

// Rows `tokens` of q of one head, tile.rows of them, packed.
template <class Params>
void pack_rows(const TileOps& tiles, const Params& params, int32_t batch_row, int32_t head, const int32_t* tokens,
               TileBuffers& buffers, const Tile& tile) {
  float scales[kTileRows];
  std::fill_n(scales, tile.rows, static_cast<float>(params.scale * 1.4426950408889634));
  const int64_t size = params.dtype == ScalarType::kFloat32 ? 4 : 2;
  const char* q = static_cast<const char*>(params.q.data) +
                  (batch_row * params.q.batch_stride + head * params.q.head_stride) * size;
  buffers.pack_queries(tiles, params.dtype, q, params.q.token_stride, tokens, scales, tile);
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

// Packs pair by pair within the memory bound and calls compute(worker memory, record shape, batch row, head, keys, range)
// for every range of every head, on all workers. `group` heads share a key head.
template <class Compute>
void for_each_range(const TileOps& tiles, const KeySource& source, int32_t group, const Parallel& parallel,
                    const std::vector<RowRange>& ranges, Compute compute) {
  if (ranges.empty()) return;
  thread_local PackedKeys packed_memory;
  PackedKeys& packed = packed_memory;
  const std::vector<uint8_t> used(static_cast<size_t>(kPlanes) * source.key_blocks, 1);
  packed.plan(tiles, source, used, 1);
  const int workers = std::max(parallel.workers, 1);
  std::vector<KeyList> lists;
  for (int first = 0; first < packed.pairs();) {
    const int end = packed.place(first);
    packed.pack(first, end, parallel);
    lists.clear();
    for (int pair = first; pair < end; ++pair) lists.push_back(list_keys(packed, pair, source.key_blocks));
    const int64_t units = int64_t{end - first} * group * static_cast<int64_t>(ranges.size());
    std::atomic<int64_t> next_unit{0};
    auto work = [&](int /*worker*/) {
      thread_local WorkerMemory memory;
      for (int64_t i = next_unit.fetch_add(1); i < units; i = next_unit.fetch_add(1)) {
        const auto size = static_cast<int64_t>(ranges.size());
        const int pair = first + static_cast<int>(i / size / group);
        const auto head = static_cast<int32_t>(pair % source.key_heads * group + i / size % group);
        compute(memory, packed.shape(), pair / source.key_heads, head, lists[pair - first], ranges[i % size]);
      }
    };
    run_tasks(parallel, workers, work);
    first = end;
  }
}

// A tile's row sums in natural units.
float sum_lanes(const TileOps& tiles, const Tile& tile, int row) {
  float sum = 0;
  for (int c = 0; c < tiles.lanes; ++c) sum += tile.l[int64_t{row} * tiles.lanes + c];
  return sum;
}

// Whole query blocks in a range, so that no two workers write to one result: as many as fit in a tile, or one larger.
std::vector<RowRange> whole_blocks(int32_t query_blocks, const int32_t* query_offsets) {
  std::vector<RowRange> ranges;
  for (int32_t m = 0; m < query_blocks; ++m) {
    const int32_t begin = query_offsets[m], rows = query_offsets[m + 1] - begin;
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
      int32_t tokens[kTileRows];
      for (int i = 0; i < tile.rows; ++i) {
        tile.m[i] = std::max(lse[i] * kLog2E, kLowestMaximum);
        tokens[i] = first + i;
      }
      pack_rows(tiles_, params_, batch_row, head, tokens, memory.buffers, tile);
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

// A batch row for each head, since heads sample other keys.
KeySource sampled_keys(const BlockImportanceParams& params, const std::vector<int32_t>& key_offsets) {
  KeySource source;
  source.dtype = params.dtype;
  source.batch = params.heads;
  source.key_heads = 1;
  source.key_tokens = key_offsets.back();
  source.head_dim = params.head_dim;
  source.k = params.k;
  source.k.batch_stride = params.k.head_stride;
  source.key_bias = params.key_bias;
  source.order = params.key_tokens;
  source.order_stride = key_offsets.back();
  source.key_blocks = params.key_blocks;
  source.key_offsets = key_offsets.data();
  return source;
}

std::vector<int32_t> uniform_offsets(int32_t blocks, int32_t size) {
  std::vector<int32_t> offsets(static_cast<size_t>(blocks) + 1);
  for (int32_t i = 0; i <= blocks; ++i) offsets[i] = i * size;
  return offsets;
}

class ImportanceWorker {
 public:
  ImportanceWorker(const TileOps& tiles, const ScoreOps& ops, const BlockImportanceParams& params, const KeyList& keys)
      : tiles_(tiles),
        ops_(ops),
        params_(params),
        keys_(keys),
        // Room for the runs that a stage touches behind its last one, and whole vectors.
        stride_((static_cast<int64_t>(keys.visible.size()) + 3 + 15) / 16 * 16) {}

  void run(WorkerMemory& memory, const RecordShape& shape, int32_t head, const RowRange& range) {
    const int32_t samples = params_.query_samples, blocks = range.end_block - range.first_block;
    memory.maxima.resize(static_cast<size_t>(kTileRows) * stride_);
    memory.best.assign(static_cast<size_t>(blocks) * stride_, -kInfinity);
    const int32_t* tokens = params_.query_tokens + int64_t{head} * params_.query_blocks * samples;
    Tile tile = memory.buffers.prepare(tiles_, shape, 0);
    for (int32_t done = 0; done < range.rows; done += tile.rows) {
      tile.rows = std::min(kTileRows, range.rows - done);
      clear_state(tiles_, tile);
      std::fill(memory.maxima.begin(), memory.maxima.end(), -kInfinity);
      pack_rows(tiles_, params_, 0, head, tokens + range.first + done, memory.buffers, tile);
      walk(tiles_, keys_, tile, [&](size_t at, int count) { raise_stage(tile, at, count, memory.maxima.data()); });
      for (int i = 0; i < tile.rows; ++i) {
        const float offset = params_.is_softmax ? std::log2(sum_lanes(tiles_, tile, i)) : 0.0F;
        ops_.raise_relative(memory.maxima.data() + i * stride_, stride_, offset,
                            memory.best.data() + (done + i) / samples * stride_);
      }
    }
    for (int32_t m = 0; m < blocks; ++m) write_row(memory.best.data() + m * stride_, head, range.first_block + m);
  }

 private:
  void raise_stage(const Tile& tile, size_t at, int count, float* maxima) const {
    uint8_t runs[kStageGroups];
    int run = 0;
    for (int g = 0; g < count; ++run) {
      const int first = g;
      while (g < count && keys_.places[at + g] == keys_.places[at + first]) ++g;
      runs[run] = static_cast<uint8_t>(g - first);
    }
    ops_.maxima(tile, runs, run, params_.is_softmax, maxima + keys_.places[at], stride_);
  }

  // exp is monotone: the largest exponent gives the largest value, and the largest key of a query exactly 1.
  void write_row(const float* best, int32_t head, int32_t m) const {
    float* row = params_.importance + (int64_t{head} * params_.query_blocks + m) * params_.key_blocks;
    std::fill_n(row, params_.key_blocks, 0.0F);
    for (size_t j = 0; j < keys_.visible.size(); ++j) {
      const float value = std::exp2(best[j]);
      row[keys_.visible[j]] = !params_.is_softmax && value > kAlmostLargest ? 1.0F : value;
    }
  }

  const TileOps& tiles_;
  const ScoreOps& ops_;
  const BlockImportanceParams& params_;
  const KeyList& keys_;
  int64_t stride_;  // of rows of maxima
};

}  // namespace

void run_tiled_mass(const TileOps& tiles, const ScoreOps& ops, const BlockMassParams& params) {
  if (params.batch == 0 || params.heads == 0) return;
  for_each_range(
      tiles, key_source(params), params.heads / params.key_heads, params.parallel,
      whole_blocks(params.query_blocks, params.query_offsets),
      [&](WorkerMemory& memory, const RecordShape& shape, int32_t batch_row, int32_t head, const KeyList& keys,
          const RowRange& range) { MassWorker(tiles, ops, params, keys).run(memory, shape, batch_row, head, range); });
}

void run_tiled_importance(const TileOps& tiles, const ScoreOps& ops, const BlockImportanceParams& params) {
  const std::vector<int32_t> query_offsets = uniform_offsets(params.query_blocks, params.query_samples);
  const std::vector<int32_t> key_offsets = uniform_offsets(params.key_blocks, params.key_samples);
  for_each_range(
      tiles, sampled_keys(params, key_offsets), 1, params.parallel,
      whole_blocks(params.query_blocks, query_offsets.data()),
      [&](WorkerMemory& memory, const RecordShape& shape, int32_t head, int32_t /*head of it*/, const KeyList& keys,
          const RowRange& range) { ImportanceWorker(tiles, ops, params, keys).run(memory, shape, head, range); });
}

}  // namespace strobe::kernels
