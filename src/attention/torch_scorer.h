// A Scorer of LibTorch's products: any device, in chunks of query rows. What the kernels' scorer is compared with.
#pragma once

#include "attention/scorer.h"

namespace strobe::attention {

class TorchScorer final : public Scorer {
 public:
  std::string name() const override { return "torch_scores"; }
  at::Tensor row_lse(const ScoreInput& input) const override;
  BlockMass block_mass(const ScoreInput& input, const at::Tensor& lse, const std::vector<int32_t>& query_offsets,
                       const std::vector<int32_t>& key_offsets, bool wants_row_sum) const override;
  at::Tensor block_importance(const ScoreInput& input, const BlockSamples& queries, const BlockSamples& keys,
                              bool is_softmax) const override;
};

}  // namespace strobe::attention
