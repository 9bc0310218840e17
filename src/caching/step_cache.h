// Step caches: which transformer blocks a step recomputes. Listed in step_caches.inc.
//
// Contract  Asked before each block; a cache that skips a block supplies its output. State belongs to the run.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace strobe::caching {

struct BlockSite {
  int layer = 0;
  int layers = 0;
  int stage = 0;
  int step = 0;
  int steps = 0;
  int branch = 0;  // as an integer key: caches never mix branches
};

class StepCache {
 public:
  virtual ~StepCache() = default;
  virtual std::string name() const = 0;
  // The block's output without running it, or nullopt: run it.
  virtual std::optional<at::Tensor> recall(const BlockSite& site, const at::Tensor& input) = 0;
  // Called with the output of every block that ran.
  virtual void store(const BlockSite& site, const at::Tensor& input, const at::Tensor& output) = 0;
};

// ConfigError with the nearest name for an unknown one.
std::unique_ptr<StepCache> make_step_cache(const std::string& name);
std::vector<std::string> step_cache_names();

}  // namespace strobe::caching
