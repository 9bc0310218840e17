// Runs transformer blocks, asking the step cache which of them to recompute.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "caching/step_cache.h"

namespace strobe::models {

class BlockRunner {
 public:
  explicit BlockRunner(caching::StepCache& cache) : cache_(cache) {}

  // `block` gets the hidden states [B, N, C] and returns those after the block; it may work in place.
  at::Tensor run(const caching::BlockSite& site, at::Tensor hidden, const std::function<at::Tensor(at::Tensor)>& block);

  int64_t blocks_run() const { return blocks_run_; }
  int64_t blocks_recalled() const { return blocks_recalled_; }

 private:
  caching::StepCache& cache_;
  int64_t blocks_run_ = 0;
  int64_t blocks_recalled_ = 0;
};

}  // namespace strobe::models
