// Which key blocks each query block reads, per head, and at which key-pooling level.
//
// Contract  M query blocks and K key blocks are runs of tokens, of any length; a query block may be one token. A pair
//           is dropped (0), kept (1), or kept with its keys and values pooled by 2, 4 or 8, and sits in one bit plane
//           at most. Kept at that granularity: nothing is rounded to tiles. One head stands for all heads where a
//           layout is shared. There is no batch axis: batch rows are planned one by one, since their plans are cached
//           by branch and may differ in method.
// Units     density counts tokens, pooled keys as 1/factor; it is in (0, 1].
// Errors    ShapeError naming head and row.
// Source    docs of the kernels: kernels/block_attention/block_attention.h
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/block_attention/block_attention.h"

namespace strobe {

class BlockLayout {
 public:
  struct Csr {
    std::vector<int32_t> row_ptr;  // [heads * (M + 1)], per head from 0
    std::vector<int32_t> col;      // columns of all heads, rows sorted
    std::vector<uint8_t> factor;   // of each column entry
  };

  // Nothing kept. Offsets are the first token of each block and then the number of tokens, increasing.
  BlockLayout(int64_t heads, std::vector<int32_t> query_offsets, std::vector<int32_t> key_offsets);

  static std::vector<int32_t> uniform_offsets(int64_t tokens, int64_t block_size);
  // Every pair kept, one head.
  static BlockLayout full(std::vector<int32_t> query_offsets, std::vector<int32_t> key_offsets);

  int64_t heads() const { return heads_; }
  int64_t query_blocks() const { return static_cast<int64_t>(query_offsets_.size()) - 1; }
  int64_t key_blocks() const { return static_cast<int64_t>(key_offsets_.size()) - 1; }
  int64_t query_tokens() const { return query_offsets_.back(); }
  int64_t key_tokens() const { return key_offsets_.back(); }
  int64_t words() const { return words_; }  // 64-bit words of a row
  const std::vector<int32_t>& query_offsets() const { return query_offsets_; }
  const std::vector<int32_t>& key_offsets() const { return key_offsets_; }

  int factor(int64_t head, int64_t row, int64_t col) const;  // 0 dropped, 1, 2, 4, 8
  bool is_kept(int64_t head, int64_t row, int64_t col) const { return factor(head, row, col) != 0; }
  // factor 0, 1, 2, 4 or 8; replaces what the pair had.
  void set(int64_t head, int64_t row, int64_t col, int factor = 1);
  void set_row(int64_t head, int64_t row);                                // all columns, unpooled
  void set_range(int64_t head, int64_t row, int64_t first, int64_t end);  // columns [first, end), unpooled
  // Bits of a row in the unpooled plane; the caller keeps other planes free of them.
  uint64_t* row(int64_t head, int64_t row) { return planes_[0].data() + row_index(head, row); }
  const uint64_t* row(int64_t head, int64_t row) const { return planes_[0].data() + row_index(head, row); }
  bool has_pooled_pairs() const;
  // Bits of all rows at one factor: [heads, M, words]; empty if no pair was ever set there.
  const std::vector<uint64_t>& plane(int factor) const;
  void set_plane(int factor, std::vector<uint64_t> bits);

  double density() const;
  double density(int64_t head) const;
  int64_t kept_blocks() const;  // pairs kept at any level, all heads of the layout
  bool is_full() const;         // every pair kept unpooled

  Csr csr() const;
  BlockLayout transposed() const;
  // Pairs kept by either, at the finer level. Offsets must be equal; heads equal or 1.
  static BlockLayout united(const BlockLayout& a, const BlockLayout& b);
  // A pair sits in one plane; bits beyond K are 0; no row is empty unless allowed.
  void validate(bool allows_empty_rows = false) const;

  kernels::BlockLayoutView view() const;
  int64_t bytes() const;
  bool operator==(const BlockLayout&) const = default;

 private:
  size_t row_index(int64_t head, int64_t row) const {
    return static_cast<size_t>((head * query_blocks() + row) * words_);
  }
  std::vector<uint64_t>& allocated(size_t index);

  int64_t heads_ = 1;
  int64_t words_ = 0;
  std::vector<int32_t> query_offsets_;
  std::vector<int32_t> key_offsets_;
  std::array<std::vector<uint64_t>, 4> planes_;  // factor 1, 2, 4, 8: [heads, M, words]; empty: none
};

using LayoutPtr = std::shared_ptr<const BlockLayout>;

}  // namespace strobe
