#include "kernels/block_attention/packed_keys.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace strobe::kernels {
namespace {

// Packed keys and values in memory at one time: a model's whole layer may have several GB of them.
constexpr int64_t kMaxPackedBytes = int64_t{512} << 20;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Rows on their way into a record. Widened and pooled rows need a place of their own; others are read where they lie.
struct Rows {
  std::vector<float> memory;  // [2 x group, head_dim], keys then values
  std::vector<float> zeros;
  const float* keys[kMaxGroup];
  const float* values[kMaxGroup];
  float bias[kMaxGroup];
};

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
  const float* bias = source_.key_bias + int64_t{batch_row} * source_.key_tokens;
  const int32_t begin = source_.key_offsets[block], end = source_.key_offsets[block + 1];
  int32_t count = 0;
  for (int32_t g = 0; g < groups; ++g) {
    // The last token stands for its copies.
    const int32_t first = std::min(begin + ((g * ops_->group_keys) << plane), end - 1);
    const int32_t last = std::min(begin + (((g + 1) * ops_->group_keys) << plane), end);
    count += std::any_of(bias + first, bias + last, [](float b) { return b != -kInfinity; }) ? 1 : 0;
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

void PackedKeys::pack(int pair, int32_t block) const {
  thread_local Rows rows;
  const int group = ops_->group_keys, width = source_.head_dim;
  rows.memory.resize(static_cast<size_t>(2) * group * width);
  rows.zeros.resize(width);
  const int b = pair / source_.key_heads, h = pair % source_.key_heads;
  const bool is_bf16 = source_.dtype == ScalarType::kBFloat16, has_values = source_.v.data != nullptr;
  const float* bias = source_.key_bias ? source_.key_bias + int64_t{b} * source_.key_tokens : nullptr;
  const int32_t begin = source_.key_offsets[block], end = source_.key_offsets[block + 1];
  const auto is_hidden = [&](int32_t token) { return bias && bias[token] == -kInfinity; };

  // One row of k or v where it lies, or widened into `place`.
  const auto row_of = [&](const TensorView& x, int32_t token, float* place) -> const float* {
    const int64_t at = b * x.batch_stride + h * x.head_stride + token * x.token_stride;
    if (!is_bf16) return static_cast<const float*>(x.data) + at;
    ops_->widen(static_cast<const uint16_t*>(x.data) + at, place, width);
    return place;
  };
  thread_local std::vector<float> wide;
  wide.resize(width);
  const auto add_row = [&](const TensorView& x, int32_t token, float* sum) {
    const float* row = row_of(x, token, wide.data());
    for (int c = 0; c < width; ++c) sum[c] += row[c];
  };

  for (int plane = 0; plane < kPlanes; ++plane) {
    if (record_count(pair, plane, block) == 0) continue;
    char* record = base_[pair] + first_[index(pair, plane, block)] * shape_.bytes;
    const int32_t count = piece_rows(source_, block, plane);
    for (int32_t first = 0; first < count; first += group) {
      bool has_visible = false;
      for (int i = 0; i < group; ++i) {
        float* key_place = rows.memory.data() + int64_t{i} * width;
        float* value_place = key_place + int64_t{group} * width;
        rows.keys[i] = rows.values[i] = rows.zeros.data();
        rows.bias[i] = -kInfinity;
        if (first + i >= count) continue;
        if (plane == 0) {
          const int32_t token = begin + first + i;
          if (is_hidden(token)) continue;
          rows.keys[i] = row_of(source_.k, token, key_place);
          if (has_values) rows.values[i] = row_of(source_.v, token, value_place);
          rows.bias[i] = bias ? bias[token] * kLog2E : 0.0F;
          has_visible = true;
          continue;
        }
        const int32_t head = begin + ((first + i) << plane);
        const int32_t copies_end = count << plane;  // of a replicated tail, counted from `begin`
        const bool replicates =
            source_.replicates_tail && block == source_.key_blocks - 1 && source_.replicated_size > end - begin;
        const int32_t tail =
            std::min(head + (1 << plane), replicates ? begin + std::min(copies_end, source_.replicated_size) : end);
        int members = 0;
        for (int32_t t = head; t < tail; ++t) {
          const int32_t token = std::min(t, end - 1);
          if (is_hidden(token)) continue;
          if (members++ == 0) {
            std::fill_n(key_place, width, 0.0F);
            std::fill_n(value_place, width, 0.0F);
          }
          add_row(source_.k, token, key_place);
          if (has_values) add_row(source_.v, token, value_place);
        }
        if (members == 0) continue;
        has_visible = true;
        for (int c = 0; c < width; ++c) key_place[c] /= static_cast<float>(members);
        if (has_values) {
          for (int c = 0; c < width; ++c) value_place[c] /= static_cast<float>(members);
        }
        rows.keys[i] = key_place;
        rows.values[i] = value_place;
        rows.bias[i] = source_.has_multiplicity_bias ? std::log2(static_cast<float>(members)) : 0.0F;
      }
      if (!has_visible) continue;
      ops_->pack_keys(rows.keys, shape_, record);
      if (has_values) ops_->pack_values(rows.values, shape_, record);
      std::memcpy(record + shape_.bias_offset, rows.bias, sizeof(float) * group);
      record += shape_.bytes;
    }
  }
}

}  // namespace strobe::kernels
