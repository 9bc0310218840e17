// Where an attention call happens. Always passed; nobody parses a layer's name or looks in ambient state for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/branch.h"
#include "core/token_grid.h"

namespace strobe::attention {

enum class AttentionKind { kSelf, kCross, kJoint };

struct AttentionSite {
  AttentionKind kind = AttentionKind::kSelf;
  int stage = 0;  // expert, 0 = high noise
  int layer = 0;
  int layers = 0;                // of the model
  std::vector<Branch> branches;  // one per batch row
  int sample = 0;                // index of the clip in the run
  uint64_t seed = 0;
  int step = 0;  // 0 .. steps-1
  int steps = 0;
  int evaluation = 0;  // model evaluation within the step
  double sigma = 0;
  TokenGrid grid;
  std::vector<int64_t> valid_text;  // real text tokens per batch row; empty: not said
  bool plans_always = false;        // `pattern run`: what keeps a rule from a call (steps, sigma, tiny sizes) is off
};

}  // namespace strobe::attention
