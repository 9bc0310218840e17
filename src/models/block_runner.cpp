#include "models/block_runner.h"

#include "core/torch.h"

namespace strobe::models {

at::Tensor BlockRunner::run(const caching::BlockSite& site, at::Tensor hidden,
                            const std::function<at::Tensor(at::Tensor)>& block) {
  if (std::optional<at::Tensor> recalled = cache_.recall(site, hidden)) {
    ++blocks_recalled_;
    return *recalled;
  }
  ++blocks_run_;
  at::Tensor input = hidden;
  at::Tensor output = block(std::move(hidden));
  cache_.store(site, input, output);
  return output;
}

}  // namespace strobe::models
