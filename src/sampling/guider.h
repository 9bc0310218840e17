// Guiders: which branches a step needs, and how their predictions become one. Listed in guiders.inc.
//
// Errors  ConfigError for an unknown name or a scale that is not a finite number; ShapeError for predictions that do
//         not fit the step's branches.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/branch.h"

namespace strobe::sampling {

struct GuidanceStep {
  int step = 0;
  int steps = 0;
  double sigma = 0;
  int stage = 0;  // expert
};

// Numbers common to all guiders; `scale_per_stage` has one entry per expert (the last one repeats).
struct GuiderOptions {
  std::vector<double> scale_per_stage = {5.0};
};

class Guider {
 public:
  virtual ~Guider() = default;
  virtual std::string name() const = 0;
  // In the order that `combine` takes them.
  virtual std::vector<Branch> branches(const GuidanceStep& step) const = 0;
  // `predictions` float32, one per branch of this step. Returns float32.
  virtual at::Tensor combine(const GuidanceStep& step, const std::vector<at::Tensor>& predictions) const = 0;
};

// ConfigError with the nearest name for an unknown one.
std::unique_ptr<Guider> make_guider(const std::string& name, const GuiderOptions& options);
std::vector<std::string> guider_names();

#define STROBE_GUIDER(name) std::unique_ptr<Guider> make_##name##_guider(const GuiderOptions& options);
#include "sampling/guiders.inc"
#undef STROBE_GUIDER

}  // namespace strobe::sampling
