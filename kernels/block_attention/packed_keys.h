// Keys and values as records (tile_ops.h), for the blocks that some row keeps.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/block_attention/tile_ops.h"
#include "kernels/common/scratch.h"
#include "kernels/common/types.h"

namespace strobe::kernels {

constexpr int kPlanes = 4;  // plane p holds rows that are means of 2^p tokens

struct KeySource {
  ScalarType dtype = ScalarType::kFloat32;
  int32_t batch = 0, key_heads = 0, key_tokens = 0, head_dim = 0;
  TensorView k, v;                  // v.data null: keys only
  const float* key_bias = nullptr;  // of token t of batch row b: key_bias[b * bias_stride + t]
  int64_t bias_stride = 0;
  const int32_t* order = nullptr;  // token at place p of batch row b: order[b * order_stride + p]; null: token p
  int64_t order_stride = 0;
  int32_t key_blocks = 0;
  const int32_t* key_offsets = nullptr;  // [key_blocks + 1], places
  bool has_multiplicity_bias = true;
  bool replicates_tail = false;
  int32_t replicated_size = 0;
};

// Order and bias of one batch row: which tokens stand at the places that blocks are runs of.
struct KeyPlaces {
  const int32_t* order;
  const float* bias;

  KeyPlaces(const KeySource& source, int batch_row)
      : order(source.order ? source.order + batch_row * source.order_stride : nullptr),
        bias(source.key_bias ? source.key_bias + batch_row * source.bias_stride : nullptr) {}

  int32_t token(int32_t place) const { return order ? order[place] : place; }
  bool is_hidden(int32_t place) const { return bias && bias[token(place)] == -std::numeric_limits<float>::infinity(); }
};

// Rows of a block at a plane: tokens, or pooled rows.
int32_t piece_rows(const KeySource& source, int32_t block, int plane);

// Plans for all (batch row, key head) pairs, then packs a range of them at a time. The object belongs to a thread and is
// used again by its next call, so that a steady state allocates nothing.
class PackedKeys {
 public:
  // used[(table * kPlanes + plane) * key_blocks + block]: some row keeps it. One table, or one for each key head.
  void plan(const TileOps& ops, const KeySource& source, const std::vector<uint8_t>& used, int tables);

  const RecordShape& shape() const { return shape_; }
  int pairs() const { return source_.batch * source_.key_heads; }

  // The end of the longest range of pairs from `first` on that fits in the memory bound (one pair at least).
  int place(int first);
  // Packs the placed pairs [first, end) on all workers.
  void pack(int first, int end, const Parallel& parallel) const;

  int32_t record_count(int pair, int plane, int32_t block) const {
    return first_[index(pair, plane, block)] < 0 ? 0 : counts_[count_index(pair, plane, block)];
  }
  const char* record(int pair, int plane, int32_t block) const {
    return base_[pair] + first_[index(pair, plane, block)] * shape_.bytes;
  }

 private:
  class BlockPacker;

  // All planes of one block of a placed pair; for any thread.
  void pack_block(int pair, int32_t block) const;

  int batch_table(int pair) const { return source_.key_bias ? pair / source_.key_heads : 0; }
  int64_t index(int pair, int plane, int32_t block) const {
    const int table = batch_table(pair) * tables_ + (tables_ > 1 ? pair % source_.key_heads : 0);
    return (int64_t{table} * kPlanes + plane) * source_.key_blocks + block;
  }
  int64_t count_index(int pair, int plane, int32_t block) const {
    return (int64_t{batch_table(pair)} * kPlanes + plane) * source_.key_blocks + block;
  }
  int32_t count_records(int batch_row, int32_t block, int plane) const;

  const TileOps* ops_ = nullptr;
  KeySource source_;
  RecordShape shape_;
  int tables_ = 1;
  std::vector<int32_t> counts_;   // [batch tables, planes, blocks]
  std::vector<int32_t> first_;    // [batch tables, tables, planes, blocks]; -1: not used
  std::vector<int64_t> records_;  // [batch tables, tables]
  std::vector<char*> base_;       // [pairs]
  Scratch memory_;
};

}  // namespace strobe::kernels
