// Every block runs at every step.
#include "caching/step_cache.h"

namespace strobe::caching {
namespace {

class NoStepCache final : public StepCache {
 public:
  std::string name() const override { return "none"; }
  std::optional<at::Tensor> recall(const BlockSite&, const at::Tensor&) override { return std::nullopt; }
  void store(const BlockSite&, const at::Tensor&, const at::Tensor&) override {}
};

}  // namespace

std::unique_ptr<StepCache> make_none_step_cache() { return std::make_unique<NoStepCache>(); }

}  // namespace strobe::caching
