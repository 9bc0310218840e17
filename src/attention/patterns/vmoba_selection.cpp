#include "attention/patterns/vmoba_selection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/parallel.h"

namespace strobe::attention {
namespace {

constexpr double kEpsilon = 1e-6;         // of the public code: added to totals, and the least range that is normalised
constexpr int64_t kQueriesAtOnce = 4096;  // rows whose bits stay in the second-level cache while the blocks pass

// Unsigned integers in the order of the floats; both zeros are one.
uint32_t ordered_bits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// Entries are taken in descending order until the sum of their weights is this share of the whole, at least one.
struct Goal {
  double whole = 1;
  double share = 0;

  bool is_reached(double sum) const { return sum / whole >= share; }
};

struct Range {
  float low = 0;
  float width = 1;

  Range(float lowest, float highest)
      : low(lowest), width(highest - lowest > static_cast<float>(kEpsilon) ? highest - lowest : 1.0F) {}
  float normalised(float gate) const { return (gate - low) / width; }
};

Goal goal_of_mass(double total, double own, double tau) {
  return {.whole = total + kEpsilon, .share = std::max(0.0, tau - own / (total + kEpsilon))};
}

struct Bin {
  double weight = 0;
  int64_t count = 0;
};

// The bin in which the goal is reached, `sum` being what is above it; the lowest one that holds anything if none is.
size_t bin_of_cut(const std::vector<Bin>& bins, const Goal& goal, double& sum) {
  size_t lowest = 0;
  while (lowest + 1 < bins.size() && bins[lowest].count == 0) ++lowest;
  size_t bin = bins.size() - 1;
  for (; bin > lowest; --bin) {
    if (bins[bin].count == 0) continue;
    if (goal.is_reached(sum + bins[bin].weight)) break;
    sum += bins[bin].weight;
  }
  return bin;
}

// One query and head: few entries, in about as many bins of equal width; those in the bin of the cut are sorted.
class LocalSelector {
 public:
  LocalSelector(int64_t blocks, const GateRule& rule)
      : rule_(rule), blocks_(static_cast<size_t>(blocks)), values_(blocks_), bin_of_(blocks_) {}

  void select(const float* gates, size_t own, uint64_t* bits) {
    bits[own / 64] |= uint64_t{1} << (own % 64);
    const auto [low, high] = limits(gates);
    const Range range(low, high);
    Goal goal{.whole = 1, .share = static_cast<double>(std::min(rule_.topk, static_cast<int64_t>(blocks_)) - 1)};
    if (rule_.is_threshold) {
      double total = 0;
      for (size_t c = 0; c < blocks_; ++c) values_[c] = range.normalised(gates[c]);
      for (size_t c = 0; c < blocks_; ++c) total += values_[c];
      goal = goal_of_mass(total, values_[own], rule_.tau);
    } else if (goal.share == 0) {
      return;
    } else {
      std::copy_n(gates, blocks_, values_.begin());
    }
    const float scale = static_cast<float>(blocks_) / (rule_.is_threshold ? 1.0F : range.width);
    fill_bins(rule_.is_threshold ? 0.0F : low, scale, own);
    double sum = 0;
    const auto cut = static_cast<int32_t>(bin_of_cut(bins_, goal, sum));
    for (size_t c = 0; c < blocks_; ++c) bits[c / 64] |= static_cast<uint64_t>(bin_of_[c] > cut) << (c % 64);
    take_of_bin(cut, goal, sum, bits);
  }

 private:
  static constexpr size_t kLanes = 8;  // independent minima, which the compiler turns into vector instructions

  std::pair<float, float> limits(const float* values) const {
    std::array<float, kLanes> low{}, high{};
    low.fill(values[0]), high.fill(values[0]);
    const auto add = [&](size_t lane, float value) {
      low[lane] = value < low[lane] ? value : low[lane];
      high[lane] = value > high[lane] ? value : high[lane];
    };
    size_t c = 0;
    for (; c + kLanes <= blocks_; c += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) add(lane, values[c + lane]);
    }
    for (; c < blocks_; ++c) add(0, values[c]);
    return {*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
  }

  // The own block is in none of the bins, and counts as above them.
  void fill_bins(float low, float scale, size_t own) {
    for (size_t c = 0; c < blocks_; ++c) bin_of_[c] = static_cast<int32_t>((values_[c] - low) * scale);
    bins_.assign(blocks_ + 1, {});
    for (size_t c = 0; c < blocks_; ++c) {
      if (c == own) continue;
      Bin& bin = bins_[static_cast<size_t>(bin_of_[c])];
      bin.weight += rule_.is_threshold ? values_[c] : 1.0F;
      ++bin.count;
    }
    bin_of_[own] = std::numeric_limits<int32_t>::max();
  }

  void take_of_bin(int32_t cut, const Goal& goal, double sum, uint64_t* bits) {
    // Value and then reversed index: the largest is first in order.
    entries_.clear();
    for (size_t c = 0; c < blocks_; ++c) {
      if (bin_of_[c] == cut) entries_.push_back(uint64_t{ordered_bits(values_[c])} << 32U | (0xFFFFFFFFU - c));
    }
    std::sort(entries_.begin(), entries_.end(), std::greater<>());
    for (const uint64_t entry : entries_) {
      const uint32_t c = 0xFFFFFFFFU - static_cast<uint32_t>(entry);
      bits[c / 64] |= uint64_t{1} << (c % 64);
      sum += rule_.is_threshold ? values_[c] : 1.0F;
      if (goal.is_reached(sum)) return;
    }
  }

  const GateRule& rule_;
  size_t blocks_;
  std::vector<float> values_;
  std::vector<int32_t> bin_of_;
  std::vector<Bin> bins_;
  std::vector<uint64_t> entries_;
};

void select_local(const at::Tensor& gates, const std::vector<int32_t>& offsets, const GateRule& rule,
                  int64_t first_head, BlockLayout& layout) {
  const at::Tensor by_query = gates.transpose(1, 2).contiguous();
  const int64_t queries = by_query.size(1), blocks = by_query.size(2);
  const auto* data = by_query.const_data_ptr<float>();
  parallel_for(0, by_query.size(0) * queries, 256, [&](int64_t first, int64_t end) {
    LocalSelector selector(blocks, rule);
    for (int64_t item = first; item < end; ++item) {
      const int64_t query = item % queries;
      const auto own = std::upper_bound(offsets.begin(), offsets.end(), query) - offsets.begin() - 1;
      selector.select(data + item * blocks, static_cast<size_t>(own), layout.row(first_head + item / queries, query));
    }
  });
}

// What is taken of a group: every entry above `key` and the first `ties` of those at it.
struct Cut {
  uint32_t key = std::numeric_limits<uint32_t>::max();
  int64_t ties = 0;
};

// The entries of a group are split by the leading bits of their keys, those of the bin of the cut by the next bits.
constexpr std::array<int, 3> kShifts = {19, 8, 0};
constexpr std::array<int, 3> kBits = {13, 11, 8};

// The groups of entries that compete over more than one query.
class GroupSelector {
 public:
  GroupSelector(const at::Tensor& gates, const std::vector<int32_t>& offsets, const GateRule& rule)
      : offsets_(offsets),
        rule_(rule),
        heads_(gates.size(0)),
        blocks_(gates.size(1)),
        queries_(gates.size(2)),
        keys_(static_cast<size_t>(gates.numel())) {
    const at::Tensor by_block = gates.contiguous();
    if (rule.is_threshold) {
      normalise(by_block);
    } else {
      const auto* gate = by_block.const_data_ptr<float>();
      parallel_for(0, by_block.numel(), 1 << 16, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i) keys_[static_cast<size_t>(i)] = ordered_bits(gate[i]);
      });
    }
  }

  void select(int64_t first_head, BlockLayout& layout) {
    std::vector<Cut> cuts(static_cast<size_t>(groups()));
    parallel_for(0, groups(), 1, [&](int64_t first, int64_t end) {
      for (int64_t g = first; g < end; ++g) cuts[static_cast<size_t>(g)] = find_cut(g);
    });
    parallel_for(0, heads_, 1, [&](int64_t first, int64_t end) {
      for (int64_t head = first; head < end; ++head) keep_above(head, cuts, first_head, layout);
    });
    // One after the other: groups of blocks share words of a row.
    for (int64_t g = 0; g < groups(); ++g) keep_ties(g, cuts[static_cast<size_t>(g)], first_head, layout);
  }

 private:
  int64_t groups() const {
    return rule_.pool == GatePool::kGlobal ? heads_ : rule_.pool == GatePool::kBlock ? blocks_ : 1;
  }
  int64_t group_of(int64_t head, int64_t block) const {
    return rule_.pool == GatePool::kGlobal ? head : rule_.pool == GatePool::kBlock ? block : 0;
  }
  uint32_t* keys(int64_t head, int64_t block) { return keys_.data() + (head * blocks_ + block) * queries_; }

  // Calls visit(head, block) in the order of ties.
  template <class Visit>
  void for_members(int64_t group, const Visit& visit) {
    for (int64_t block = 0; block < blocks_; ++block) {
      for (int64_t head = 0; head < heads_; ++head) {
        if (group_of(head, block) == group) visit(head, block);
      }
    }
  }

  // Calls visit(first query, end) for the queries to which the block is not their own.
  template <class Visit>
  void for_others(int64_t block, const Visit& visit) const {
    const auto c = static_cast<size_t>(block);
    visit(int64_t{0}, int64_t{offsets_[c]});
    visit(int64_t{offsets_[c + 1]}, queries_);
  }

  // Gates become the bits of numbers in [0, 1], whose order is that of unsigned integers.
  void normalise(const at::Tensor& gates) {
    const std::vector<int64_t> axes = rule_.pool == GatePool::kGlobal  ? std::vector<int64_t>{1, 2}
                                      : rule_.pool == GatePool::kBlock ? std::vector<int64_t>{0, 2}
                                                                       : std::vector<int64_t>{0, 1, 2};
    const at::Tensor low = gates.amin(axes).reshape({-1}), high = gates.amax(axes).reshape({-1});
    const auto* gate = gates.const_data_ptr<float>();
    parallel_for(0, heads_ * blocks_, 1, [&](int64_t first, int64_t end) {
      for (int64_t run = first; run < end; ++run) {
        const int64_t group = group_of(run / blocks_, run % blocks_);
        const Range range(low.const_data_ptr<float>()[group], high.const_data_ptr<float>()[group]);
        for (int64_t i = run * queries_; i < (run + 1) * queries_; ++i) {
          keys_[static_cast<size_t>(i)] = std::bit_cast<uint32_t>(range.normalised(gate[i]));
        }
      }
    });
  }

  double weight(uint32_t key) const { return rule_.is_threshold ? double{std::bit_cast<float>(key)} : 1.0; }

  Cut find_cut(int64_t group) {
    std::vector<Bin> bins(size_t{1} << kBits[0]);
    double own = 0;
    int64_t own_entries = 0;
    for_members(group, [&](int64_t head, int64_t block) {
      const uint32_t* key = keys(head, block);
      for_others(block, [&](int64_t first, int64_t end) { count(key + first, key + end, kShifts[0], bins); });
      const auto c = static_cast<size_t>(block);
      for (int64_t n = offsets_[c]; n < offsets_[c + 1]; ++n) own += weight(key[n]);
      own_entries += offsets_[c + 1] - offsets_[c];
    });
    Goal goal;
    if (rule_.is_threshold) {
      double total = own;
      for (const Bin& bin : bins) total += bin.weight;
      goal = goal_of_mass(total, own, rule_.tau);
    } else {
      goal.share = static_cast<double>((std::min(rule_.topk, blocks_) - 1) * own_entries);
      if (goal.share == 0) return {};
    }
    return descend(group, goal, bins);
  }

  // From the bin of the cut to the key of the cut.
  Cut descend(int64_t group, const Goal& goal, std::vector<Bin>& bins) {
    double sum = 0;
    std::vector<uint32_t> entries;
    auto prefix = static_cast<uint32_t>(bin_of_cut(bins, goal, sum));
    for (size_t level = 1; level < kShifts.size(); ++level) {
      const int shift = kShifts[level - 1];
      std::vector<uint32_t> inside;
      inside.reserve(static_cast<size_t>(bins[prefix & ((1U << kBits[level - 1]) - 1)].count));
      const auto gather = [&](const uint32_t* first, const uint32_t* end) {
        std::copy_if(first, end, std::back_inserter(inside), [&](uint32_t key) { return key >> shift == prefix; });
      };
      if (level == 1) {
        for_members(group, [&](int64_t head, int64_t block) {
          const uint32_t* key = keys(head, block);
          for_others(block, [&](int64_t first, int64_t end) { gather(key + first, key + end); });
        });
      } else {
        gather(entries.data(), entries.data() + entries.size());
      }
      entries = std::move(inside);
      bins.assign(size_t{1} << kBits[level], {});
      count(entries.data(), entries.data() + entries.size(), kShifts[level], bins);
      prefix = prefix << kBits[level] | static_cast<uint32_t>(bin_of_cut(bins, goal, sum));
    }
    // Entries of one key, of which as many are taken as the goal needs.
    const int64_t equals = bins[prefix & ((1U << kBits.back()) - 1)].count;
    int64_t ties = 0;
    do {
      sum += weight(prefix);
      ++ties;
    } while (ties < equals && !goal.is_reached(sum));
    return {.key = prefix, .ties = ties};
  }

  void count(const uint32_t* first, const uint32_t* end, int shift, std::vector<Bin>& bins) const {
    const auto mask = static_cast<uint32_t>(bins.size() - 1);
    for (const uint32_t* key = first; key < end; ++key) {
      Bin& bin = bins[(*key >> shift) & mask];
      bin.weight += weight(*key);
      ++bin.count;
    }
  }

  void keep_above(int64_t head, const std::vector<Cut>& cuts, int64_t first_head, BlockLayout& layout) {
    const int64_t words = layout.words();
    uint64_t* rows = layout.row(first_head + head, 0);
    for (int64_t from = 0; from < queries_; from += kQueriesAtOnce) {
      const int64_t to = std::min(from + kQueriesAtOnce, queries_);
      for (int64_t block = 0; block < blocks_; ++block) {
        const uint32_t* key = keys(head, block);
        const uint32_t cut = cuts[static_cast<size_t>(group_of(head, block))].key;
        const auto c = static_cast<size_t>(block);
        uint64_t* word = rows + block / 64;
        for (int64_t n = from; n < to; ++n) {
          const bool is_own = n >= offsets_[c] && n < offsets_[c + 1];
          word[n * words] |= static_cast<uint64_t>(is_own || key[n] > cut) << (block % 64);
        }
      }
    }
  }

  void keep_ties(int64_t group, const Cut& cut, int64_t first_head, BlockLayout& layout) {
    int64_t left = cut.ties;
    for_members(group, [&](int64_t head, int64_t block) {
      const uint32_t* key = keys(head, block);
      for_others(block, [&](int64_t first, int64_t end) {
        while (left > 0) {
          first = std::find(key + first, key + end, cut.key) - key;
          if (first >= end) break;
          layout.row(first_head + head, first)[block / 64] |= uint64_t{1} << (block % 64);
          --left, ++first;
        }
      });
    });
  }

  const std::vector<int32_t>& offsets_;
  const GateRule& rule_;
  int64_t heads_, blocks_, queries_;
  std::vector<uint32_t> keys_;  // [H, C, S]
};

}  // namespace

void select_by_gates(const at::Tensor& gates, const std::vector<int32_t>& block_offsets, const GateRule& rule,
                     int64_t first_head, BlockLayout& layout) {
  STROBE_CHECK(gates.dim() == 3 && gates.scalar_type() == at::kFloat && gates.is_cpu(), "gates: {}", gates.toString());
  STROBE_CHECK(static_cast<int64_t>(block_offsets.size()) == gates.size(1) + 1 && block_offsets.back() == gates.size(2),
               "gates: {} blocks that end at {}, expected {} and {}", block_offsets.size() - 1, block_offsets.back(),
               gates.size(1), gates.size(2));
  STROBE_CHECK(rule.is_threshold || (rule.topk >= 1 && rule.pool != GatePool::kBlock), "gates: topk {}", rule.topk);
  if (rule.pool == GatePool::kLocal) {
    select_local(gates, block_offsets, rule, first_head, layout);
  } else {
    GroupSelector(gates, block_offsets, rule).select(first_head, layout);
  }
}

}  // namespace strobe::attention
