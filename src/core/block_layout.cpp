#include "core/block_layout.h"

#include <bit>

#include "core/error.h"

namespace strobe {
namespace {

constexpr int64_t kWordBits = 64;

void check_offsets(const std::vector<int32_t>& offsets, const char* what) {
  STROBE_CHECK(offsets.size() >= 2 && offsets.front() == 0,
               "block layout: {} offsets: expected 0 and at least one block", what);
  for (size_t i = 1; i < offsets.size(); ++i) {
    STROBE_CHECK(offsets[i] > offsets[i - 1], "block layout: {} block {} is empty or runs backwards", what, i - 1);
  }
}

size_t plane_of(int factor) {
  STROBE_CHECK(factor == 1 || factor == 2 || factor == 4 || factor == 8,
               "block layout: factor {}: expected 0, 1, 2, 4 or 8", factor);
  return static_cast<size_t>(std::countr_zero(static_cast<unsigned>(factor)));
}

}  // namespace

BlockLayout::BlockLayout(int64_t heads, std::vector<int32_t> query_offsets, std::vector<int32_t> key_offsets)
    : heads_(heads), query_offsets_(std::move(query_offsets)), key_offsets_(std::move(key_offsets)) {
  STROBE_CHECK(heads >= 1, "block layout: {} heads", heads);
  check_offsets(query_offsets_, "query");
  check_offsets(key_offsets_, "key");
  words_ = (key_blocks() + kWordBits - 1) / kWordBits;
  planes_[0].resize(static_cast<size_t>(heads_ * query_blocks() * words_));
}

std::vector<int32_t> BlockLayout::uniform_offsets(int64_t tokens, int64_t block_size) {
  STROBE_CHECK(tokens >= 1 && block_size >= 1, "block layout: {} tokens in blocks of {}", tokens, block_size);
  std::vector<int32_t> offsets;
  offsets.reserve(static_cast<size_t>(tokens / block_size + 2));
  for (int64_t first = 0; first < tokens; first += block_size) offsets.push_back(static_cast<int32_t>(first));
  offsets.push_back(static_cast<int32_t>(tokens));
  return offsets;
}

BlockLayout BlockLayout::full(std::vector<int32_t> query_offsets, std::vector<int32_t> key_offsets) {
  BlockLayout layout(1, std::move(query_offsets), std::move(key_offsets));
  for (int64_t row = 0; row < layout.query_blocks(); ++row) layout.set_row(0, row);
  return layout;
}

std::vector<uint64_t>& BlockLayout::allocated(size_t index) {
  if (planes_[index].empty()) planes_[index].resize(planes_[0].size());
  return planes_[index];
}

const std::vector<uint64_t>& BlockLayout::plane(int factor) const { return planes_[plane_of(factor)]; }

void BlockLayout::set_plane(int factor, std::vector<uint64_t> bits) {
  STROBE_CHECK(bits.size() == planes_[0].size(), "block layout: {} words of a plane, expected {}", bits.size(),
               planes_[0].size());
  planes_[plane_of(factor)] = std::move(bits);
}

int BlockLayout::factor(int64_t head, int64_t row, int64_t col) const {
  const size_t word = row_index(head, row) + static_cast<size_t>(col / kWordBits);
  for (size_t p = 0; p < planes_.size(); ++p) {
    if (!planes_[p].empty() && ((planes_[p][word] >> (col % kWordBits)) & 1U) != 0) return 1 << p;
  }
  return 0;
}

void BlockLayout::set(int64_t head, int64_t row, int64_t col, int factor) {
  STROBE_DCHECK(head >= 0 && head < heads_ && row >= 0 && row < query_blocks() && col >= 0 && col < key_blocks(),
                "block layout: ({}, {}, {}) outside {}x{}x{}", head, row, col, heads_, query_blocks(), key_blocks());
  const size_t word = row_index(head, row) + static_cast<size_t>(col / kWordBits);
  const uint64_t bit = uint64_t{1} << (col % kWordBits);
  for (auto& plane : planes_) {
    if (!plane.empty()) plane[word] &= ~bit;
  }
  if (factor != 0) allocated(plane_of(factor))[word] |= bit;
}

void BlockLayout::set_row(int64_t head, int64_t row) { set_range(head, row, 0, key_blocks()); }

void BlockLayout::set_range(int64_t head, int64_t row, int64_t first, int64_t end) {
  const size_t base = row_index(head, row);
  for (int64_t col = first; col < end;) {
    const int64_t in_word = std::min(kWordBits - col % kWordBits, end - col);
    const uint64_t ones = in_word == kWordBits ? ~uint64_t{0} : (uint64_t{1} << in_word) - 1;
    const uint64_t bits = ones << (col % kWordBits);
    const size_t word = base + static_cast<size_t>(col / kWordBits);
    for (size_t p = 1; p < planes_.size(); ++p) {
      if (!planes_[p].empty()) planes_[p][word] &= ~bits;
    }
    planes_[0][word] |= bits;
    col += in_word;
  }
}

bool BlockLayout::has_pooled_pairs() const {
  for (size_t p = 1; p < planes_.size(); ++p) {
    for (const uint64_t word : planes_[p]) {
      if (word != 0) return true;
    }
  }
  return false;
}

double BlockLayout::density(int64_t head) const {
  double kept = 0;
  for (int64_t row = 0; row < query_blocks(); ++row) {
    const size_t base = row_index(head, row);
    double keys = 0;
    for (size_t p = 0; p < planes_.size(); ++p) {
      if (planes_[p].empty()) continue;
      int64_t tokens = 0;
      for (int64_t w = 0; w < words_; ++w) {
        for (uint64_t bits = planes_[p][base + static_cast<size_t>(w)]; bits != 0; bits &= bits - 1) {
          const auto col = static_cast<size_t>(w * kWordBits + std::countr_zero(bits));
          tokens += key_offsets_[col + 1] - key_offsets_[col];
        }
      }
      keys += static_cast<double>(tokens) / static_cast<double>(1 << p);
    }
    const auto r = static_cast<size_t>(row);
    kept += keys * (query_offsets_[r + 1] - query_offsets_[r]);
  }
  return kept / (static_cast<double>(query_tokens()) * static_cast<double>(key_tokens()));
}

double BlockLayout::density() const {
  double sum = 0;
  for (int64_t head = 0; head < heads_; ++head) sum += density(head);
  return sum / static_cast<double>(heads_);
}

int64_t BlockLayout::kept_blocks() const {
  int64_t blocks = 0;
  for (const auto& plane : planes_) {
    for (const uint64_t word : plane) blocks += std::popcount(word);
  }
  return blocks;
}

bool BlockLayout::is_full() const {
  int64_t blocks = 0;
  for (const uint64_t word : planes_[0]) blocks += std::popcount(word);
  return blocks == heads_ * query_blocks() * key_blocks();
}

BlockLayout::Csr BlockLayout::csr() const {
  Csr csr;
  for (int64_t head = 0; head < heads_; ++head) {
    int32_t entries = 0;
    for (int64_t row = 0; row < query_blocks(); ++row) {
      csr.row_ptr.push_back(entries);
      for (int64_t col = 0; col < key_blocks(); ++col) {
        const int kept = factor(head, row, col);
        if (kept == 0) continue;
        csr.col.push_back(static_cast<int32_t>(col));
        csr.factor.push_back(static_cast<uint8_t>(kept));
        ++entries;
      }
    }
    csr.row_ptr.push_back(entries);
  }
  return csr;
}

BlockLayout BlockLayout::transposed() const {
  BlockLayout result(heads_, key_offsets_, query_offsets_);
  for (int64_t head = 0; head < heads_; ++head) {
    for (int64_t row = 0; row < query_blocks(); ++row) {
      for (int64_t col = 0; col < key_blocks(); ++col) {
        if (const int kept = factor(head, row, col); kept != 0) result.set(head, col, row, kept);
      }
    }
  }
  return result;
}

BlockLayout BlockLayout::united(const BlockLayout& a, const BlockLayout& b) {
  STROBE_CHECK(a.query_offsets_ == b.query_offsets_ && a.key_offsets_ == b.key_offsets_,
               "block layout: union of layouts with other blocks");
  STROBE_CHECK(a.heads_ == b.heads_ || a.heads_ == 1 || b.heads_ == 1, "block layout: union of {} and {} heads",
               a.heads_, b.heads_);
  BlockLayout result(std::max(a.heads_, b.heads_), a.query_offsets_, a.key_offsets_);
  for (int64_t head = 0; head < result.heads_; ++head) {
    const int64_t head_a = a.heads_ == 1 ? 0 : head, head_b = b.heads_ == 1 ? 0 : head;
    for (int64_t row = 0; row < result.query_blocks(); ++row) {
      for (int64_t col = 0; col < result.key_blocks(); ++col) {
        const int in_a = a.factor(head_a, row, col), in_b = b.factor(head_b, row, col);
        const int finest = in_a == 0 || in_b == 0 ? in_a + in_b : std::min(in_a, in_b);
        if (finest != 0) result.set(head, row, col, finest);
      }
    }
  }
  return result;
}

void BlockLayout::validate(bool allows_empty_rows) const {
  const uint64_t last_bits =
      key_blocks() % kWordBits == 0 ? ~uint64_t{0} : (uint64_t{1} << (key_blocks() % kWordBits)) - 1;
  for (int64_t head = 0; head < heads_; ++head) {
    for (int64_t row = 0; row < query_blocks(); ++row) {
      const size_t base = row_index(head, row);
      uint64_t any = 0;
      for (int64_t w = 0; w < words_; ++w) {
        uint64_t seen = 0;
        for (const auto& plane : planes_) {
          if (plane.empty()) continue;
          const uint64_t bits = plane[base + static_cast<size_t>(w)];
          STROBE_CHECK((seen & bits) == 0, "block layout: head {}, row {}: a pair in two planes", head, row);
          seen |= bits;
        }
        STROBE_CHECK(w + 1 < words_ || (seen & ~last_bits) == 0, "block layout: head {}, row {}: a column beyond {}",
                     head, row, key_blocks());
        any |= seen;
      }
      STROBE_CHECK(allows_empty_rows || any != 0, "block layout: head {}, row {} keeps no key block", head, row);
    }
  }
}

kernels::BlockLayoutView BlockLayout::view() const {
  kernels::BlockLayoutView view{.heads = static_cast<int32_t>(heads_),
                                .query_blocks = static_cast<int32_t>(query_blocks()),
                                .key_blocks = static_cast<int32_t>(key_blocks()),
                                .words = static_cast<int32_t>(words_),
                                .query_offsets = query_offsets_.data(),
                                .key_offsets = key_offsets_.data()};
  for (size_t p = 0; p < planes_.size(); ++p) view.planes[p] = planes_[p].empty() ? nullptr : planes_[p].data();
  return view;
}

int64_t BlockLayout::bytes() const {
  size_t bytes = (query_offsets_.size() + key_offsets_.size()) * sizeof(int32_t);
  for (const auto& plane : planes_) bytes += plane.size() * sizeof(uint64_t);
  return static_cast<int64_t>(bytes);
}

}  // namespace strobe
