#include "training/gather_jobs.h"

#include "core/torch.h"

namespace strobe::training {
namespace {

constexpr std::array<int, 4> kFactors = {1, 2, 4, 8};

// A group of rows of a layout that keep equal columns; the first stands for all.
using RowGroup = std::vector<int64_t>;

std::vector<RowGroup> equal_rows(const BlockLayout& layout, int64_t head) {
  std::map<std::vector<uint64_t>, size_t> known;
  std::vector<RowGroup> groups;
  for (int64_t row = 0; row < layout.query_blocks(); ++row) {
    std::vector<uint64_t> bits;
    for (const int factor : kFactors) {
      const std::vector<uint64_t>& plane = layout.plane(factor);
      if (plane.empty()) continue;
      const auto first = plane.begin() + (head * layout.query_blocks() + row) * layout.words();
      bits.insert(bits.end(), first, first + layout.words());
    }
    const auto [found, is_new] = known.emplace(std::move(bits), groups.size());
    if (is_new) groups.emplace_back();
    groups[found->second].push_back(row);
  }
  return groups;
}

BlockLayout transposed_head(const BlockLayout& layout, int64_t head) {
  BlockLayout result(1, layout.key_offsets(), layout.query_offsets());
  for (int64_t row = 0; row < layout.query_blocks(); ++row) {
    for (int64_t col = 0; col < layout.key_blocks(); ++col) {
      if (layout.is_kept(head, row, col)) result.set(0, col, row);
    }
  }
  return result;
}

// Blocks of a layout as lists of raster indices.
class BlockTokens {
 public:
  BlockTokens(const HeadPlan& plan, const float* key_bias) : plan_(plan), key_bias_(key_bias) {}

  void add_queries(const std::vector<int32_t>& offsets, int64_t block, std::vector<int32_t>& queries) const {
    const auto at = static_cast<size_t>(block);
    for (int32_t p = offsets[at]; p < offsets[at + 1]; ++p) queries.push_back(raster(plan_.orders.q, p));
  }

  void add_keys(const std::vector<int32_t>& offsets, int64_t block, int factor, KeyRows& keys) const {
    const auto at = static_cast<size_t>(block);
    const int32_t begin = offsets[at], end = offsets[at + 1];
    int32_t stop = end;
    if (factor > 1 && plan_.pooling.replicates_tail && at + 2 == offsets.size()) {
      stop = std::max(end, begin + static_cast<int32_t>(plan_.pooling.replicated_size));
    }
    for (int32_t p = begin; p < stop; p += factor) add_row(p, std::min(p + factor, stop), end - 1, factor, keys);
  }

 private:
  static int32_t raster(const std::shared_ptr<const TokenOrder>& order, int32_t position) {
    return order ? order->raster()[static_cast<size_t>(position)] : position;
  }

  // One row of positions [first, stop), those behind `last` copies of it.
  void add_row(int32_t first, int32_t stop, int32_t last, int factor, KeyRows& keys) const {
    const size_t before = keys.members.size();
    for (int32_t p = first; p < stop; ++p) {
      const int32_t token = raster(plan_.orders.k, std::min(p, last));
      if (!key_bias_ || key_bias_[token] != -INFINITY) keys.members.push_back(token);
    }
    const size_t members = keys.members.size() - before;
    if (members == 0) return;
    float bias = 0;
    if (factor == 1) {
      bias = key_bias_ ? key_bias_[keys.members.back()] : 0;
    } else if (plan_.pooling.has_multiplicity_bias) {
      bias = std::log(static_cast<float>(members));
    }
    keys.starts.push_back(static_cast<int32_t>(keys.members.size()));
    keys.bias.push_back(bias);
  }

  const HeadPlan& plan_;
  const float* key_bias_;
};

std::vector<GatherJob> jobs_by_queries(const BlockLayout& layout, int64_t head, const BlockTokens& tokens) {
  std::vector<GatherJob> jobs;
  for (const RowGroup& rows : equal_rows(layout, head)) {
    GatherJob job;
    for (int64_t col = 0; col < layout.key_blocks(); ++col) {
      const int factor = layout.factor(head, rows.front(), col);
      if (factor != 0) tokens.add_keys(layout.key_offsets(), col, factor, job.keys);
    }
    for (const int64_t row : rows) tokens.add_queries(layout.query_offsets(), row, job.queries);
    jobs.push_back(std::move(job));
  }
  return jobs;
}

std::vector<GatherJob> jobs_by_keys(const BlockLayout& layout, int64_t head, const BlockTokens& tokens) {
  const BlockLayout transposed = transposed_head(layout, head);
  std::vector<GatherJob> jobs;
  for (const RowGroup& rows : equal_rows(transposed, 0)) {
    GatherJob job;
    for (const int64_t row : rows) tokens.add_keys(layout.key_offsets(), row, 1, job.keys);
    for (int64_t col = 0; col < layout.query_blocks(); ++col) {
      if (transposed.is_kept(0, rows.front(), col)) tokens.add_queries(layout.query_offsets(), col, job.queries);
    }
    jobs.push_back(std::move(job));
  }
  return jobs;
}

}  // namespace

std::vector<GatherJob> gather_jobs(const HeadPlan& plan, const float* key_bias, int64_t query_tokens,
                                   int64_t key_tokens) {
  if (!plan.layout) {
    const HeadPlan dense{.layout = std::make_shared<BlockLayout>(
                             BlockLayout::full(BlockLayout::uniform_offsets(query_tokens, query_tokens),
                                               BlockLayout::uniform_offsets(key_tokens, key_tokens)))};
    return gather_jobs(dense, key_bias, query_tokens, key_tokens);
  }
  const BlockTokens tokens(plan, key_bias);
  const BlockLayout& layout = *plan.layout;
  const bool is_by_keys = !layout.has_pooled_pairs() && layout.query_blocks() > layout.key_blocks();
  std::vector<GatherJob> jobs =
      is_by_keys ? jobs_by_keys(layout, plan.layout_head, tokens) : jobs_by_queries(layout, plan.layout_head, tokens);
  std::erase_if(jobs, [](const GatherJob& job) { return job.queries.empty() || job.keys.size() == 0; });
  return jobs;
}

}  // namespace strobe::training
