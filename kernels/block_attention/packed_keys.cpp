#include "kernels/block_attention/packed_keys.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/common/parallel.h"

namespace strobe::kernels {
namespace {

// Packed keys and values in memory at one time: a model's whole layer may have several GB of them.
constexpr int64_t kMaxPackedBytes = int64_t{512} << 20;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

RecordShape record_shape(const TileOps& ops, int head_dim, bool has_values) {
  RecordShape shape;
  shape.head_dim = head_dim;
  shape.panels = has_values ? (head_dim + kPanel - 1) / kPanel : 0;
  const int64_t steps = ops.is_bf16 ? (head_dim + 1) / 2 : head_dim;
  shape.value_offset = round_up(steps * ops.group_keys * 4, 64);
  shape.bias_offset = shape.value_offset + int64_t{shape.panels} * ops.group_keys * kPanel * (ops.is_bf16 ? 2 : 4);
  // An odd multiple of 512 bytes: the same panel of eight neighbours then spreads over all sets of a 32 KB cache.
  shape.bytes = round_up(shape.bias_offset + ops.group_keys * 4, 512);
  if (shape.bytes / 512 % 2 == 0) shape.bytes += 512;
  return shape;
}

int32_t piece_rows(const KeySource& source, int32_t block, int plane) {
  int32_t tokens = source.key_offsets[block + 1] - source.key_offsets[block];
  if (plane > 0 && tokens > 0 && source.replicates_tail && block == source.key_blocks - 1) {
    tokens = std::max(tokens, source.replicated_size);
  }
  return (tokens + (1 << plane) - 1) >> plane;
}

// Groups whose keys are all hidden have no record.
int32_t PackedKeys::count_records(int batch_row, int32_t block, int plane) const {
  const int32_t rows = piece_rows(source_, block, plane);
  const int32_t groups = (rows + ops_->group_keys - 1) / ops_->group_keys;
  if (!source_.key_bias) return groups;
  const KeyPlaces places(source_, batch_row);
  const int32_t begin = source_.key_offsets[block], end = source_.key_offsets[block + 1];
  int32_t count = 0;
  for (int32_t g = 0; g < groups; ++g) {
    // The last token stands for its copies.
    const int32_t first = std::min(begin + ((g * ops_->group_keys) << plane), end - 1);
    const int32_t last = std::min(begin + (((g + 1) * ops_->group_keys) << plane), end);
    bool has_visible = false;
    for (int32_t p = first; p < last && !has_visible; ++p) has_visible = !places.is_hidden(p);
    count += has_visible ? 1 : 0;
  }
  return count;
}

void PackedKeys::plan(const TileOps& ops, const KeySource& source, const std::vector<uint8_t>& used, int tables) {
  ops_ = &ops;
  source_ = source;
  tables_ = tables;
  shape_ = record_shape(ops, source.head_dim, source.v.data != nullptr);
  const int batch_tables = source.key_bias ? source.batch : 1;
  const int64_t table_size = int64_t{kPlanes} * source.key_blocks;
  counts_.resize(batch_tables * table_size);
  first_.resize(batch_tables * tables * table_size);
  records_.resize(static_cast<size_t>(batch_tables) * tables);
  base_.assign(pairs(), nullptr);
  for (int b = 0; b < batch_tables; ++b) {
    for (int plane = 0; plane < kPlanes; ++plane) {
      for (int32_t block = 0; block < source.key_blocks; ++block) {
        bool is_used = false;
        const int64_t place = plane * int64_t{source.key_blocks} + block;
        for (int t = 0; t < tables; ++t) is_used |= used[t * table_size + place] != 0;
        counts_[b * table_size + place] = is_used ? count_records(b, block, plane) : 0;
      }
    }
    for (int t = 0; t < tables; ++t) {
      int64_t total = 0;
      for (int64_t i = 0; i < table_size; ++i) {
        const bool is_used = used[t * table_size + i] != 0;
        first_[(int64_t{b} * tables + t) * table_size + i] = is_used ? static_cast<int32_t>(total) : -1;
        if (is_used) total += counts_[b * table_size + i];
      }
      records_[static_cast<size_t>(b) * tables + t] = total;
    }
  }
}

int PackedKeys::place(int first) {
  const auto bytes = [&](int pair) {
    return records_[batch_table(pair) * tables_ + (tables_ > 1 ? pair % source_.key_heads : 0)] * shape_.bytes;
  };
  int64_t total = bytes(first);
  int end = first + 1;
  for (; end < pairs() && total + bytes(end) <= kMaxPackedBytes; ++end) total += bytes(end);
  char* at = static_cast<char*>(memory_.reserve(total));
  for (int pair = first; pair < end; ++pair) {
    base_[pair] = at;
    at += bytes(pair);
  }
  return end;
}

// Makes the records of one block of one (batch row, key head).
class PackedKeys::BlockPacker {
 public:
  BlockPacker(const PackedKeys& packed, int pair, int32_t block, std::vector<float>& memory)
      : ops_(*packed.ops_),
        source_(packed.source_),
        shape_(packed.shape_),
        batch_row_(pair / source_.key_heads),
        head_(pair % source_.key_heads),
        begin_(source_.key_offsets[block]),
        end_(source_.key_offsets[block + 1]),
        width_(source_.head_dim),
        has_values_(source_.v.data != nullptr),
        places_(source_, batch_row_) {
    const bool replicates = source_.replicates_tail && block == source_.key_blocks - 1;
    pooled_end_ = replicates ? std::max(end_, begin_ + source_.replicated_size) : end_;
    const size_t rows = static_cast<size_t>(ops_.group_keys) * width_;
    memory.resize(2 * rows + 2 * static_cast<size_t>(width_));
    key_rows_ = memory.data();
    value_rows_ = key_rows_ + rows;
    wide_ = value_rows_ + rows;
    zeros_ = wide_ + width_;
    std::fill_n(zeros_, width_, 0.0F);
  }

  void pack(int plane, int32_t rows, char* record) {
    for (int32_t first = 0; first < rows; first += ops_.group_keys) {
      bool has_visible = false;
      for (int i = 0; i < ops_.group_keys; ++i) {
        keys_[i] = values_[i] = zeros_;
        bias_of_[i] = -kInfinity;
        if (first + i < rows) has_visible |= plane == 0 ? take_place(i, begin_ + first + i) : pool(i, first + i, plane);
      }
      if (!has_visible) continue;
      ops_.pack_keys(keys_, shape_, record);
      if (has_values_) ops_.pack_values(values_, shape_, record);
      std::memcpy(record + shape_.bias_offset, bias_of_, sizeof(float) * ops_.group_keys);
      record += shape_.bytes;
    }
  }

 private:
  // A row of k or v where it lies, or widened into `place`.
  const float* row(const TensorView& x, int32_t token, float* place) const {
    const int64_t at = batch_row_ * x.batch_stride + head_ * x.head_stride + token * x.token_stride;
    if (source_.dtype == ScalarType::kFloat32) return static_cast<const float*>(x.data) + at;
    ops_.widen(static_cast<const uint16_t*>(x.data) + at, place, width_);
    return place;
  }

  bool take_place(int i, int32_t place) {
    if (places_.is_hidden(place)) return false;
    const int32_t token = places_.token(place);
    keys_[i] = row(source_.k, token, key_rows_ + int64_t{i} * width_);
    if (has_values_) values_[i] = row(source_.v, token, value_rows_ + int64_t{i} * width_);
    bias_of_[i] = places_.bias ? places_.bias[token] * kLog2E : 0.0F;
    return true;
  }

  // The mean of the visible members of pooled row `index`, summed in fp32 and rounded once.
  bool pool(int i, int32_t index, int plane) {
    const int32_t first = begin_ + (index << plane), last = std::min(first + (1 << plane), pooled_end_);
    float* key = key_rows_ + int64_t{i} * width_;
    float* value = value_rows_ + int64_t{i} * width_;
    int members = 0;
    for (int32_t p = first; p < last; ++p) {
      const int32_t place = std::min(p, end_ - 1);  // a replicated tail names the last one again
      if (places_.is_hidden(place)) continue;
      const int32_t token = places_.token(place);
      add_row(source_.k, token, members > 0, key);
      if (has_values_) add_row(source_.v, token, members > 0, value);
      ++members;
    }
    if (members == 0) return false;
    const float factor = 1.0F / static_cast<float>(members);
    for (int c = 0; c < width_; ++c) key[c] *= factor;
    for (int c = 0; c < width_ && has_values_; ++c) value[c] *= factor;
    keys_[i] = key;
    if (has_values_) values_[i] = value;
    bias_of_[i] = source_.has_multiplicity_bias ? std::log2(static_cast<float>(members)) : 0.0F;
    return true;
  }

  void add_row(const TensorView& x, int32_t token, bool adds, float* sum) {
    const float* from = row(x, token, wide_);
    if (!adds) std::fill_n(sum, width_, 0.0F);
    for (int c = 0; c < width_; ++c) sum[c] += from[c];
  }

  const TileOps& ops_;
  const KeySource& source_;
  const RecordShape& shape_;
  int batch_row_, head_;
  int32_t begin_, end_;
  int32_t pooled_end_ = 0;
  int width_;
  bool has_values_;
  KeyPlaces places_;
  float *key_rows_ = nullptr, *value_rows_ = nullptr, *wide_ = nullptr, *zeros_ = nullptr;
  const float* keys_[kMaxGroup] = {};
  const float* values_[kMaxGroup] = {};
  float bias_of_[kMaxGroup] = {};
};

void PackedKeys::pack_block(int pair, int32_t block) const {
  thread_local std::vector<float> memory;
  BlockPacker packer(*this, pair, block, memory);
  for (int plane = 0; plane < kPlanes; ++plane) {
    if (record_count(pair, plane, block) == 0) continue;
    char* record = base_[pair] + first_[index(pair, plane, block)] * shape_.bytes;
    packer.pack(plane, piece_rows(source_, block, plane), record);
  }
}

void PackedKeys::pack(int first, int end, const Parallel& parallel) const {
  constexpr int64_t kPiecesAtOnce = 4;
  const int32_t blocks = source_.key_blocks;
  const int64_t pieces = int64_t{end - first} * blocks;
  std::atomic<int64_t> next_piece{0};
  auto work = [&](int /*worker*/) {
    for (int64_t i = next_piece.fetch_add(kPiecesAtOnce); i < pieces; i = next_piece.fetch_add(kPiecesAtOnce)) {
      for (int64_t j = i; j < std::min(i + kPiecesAtOnce, pieces); ++j) {
        pack_block(first + static_cast<int>(j / blocks), static_cast<int32_t>(j % blocks));
      }
    }
  };
  run_tasks(parallel, std::max(parallel.workers, 1), work);
}

}  // namespace strobe::kernels
