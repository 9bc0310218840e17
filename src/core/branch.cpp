#include "core/branch.h"

namespace strobe {

const char* branch_name(Branch branch) {
  switch (branch) {
    case Branch::kCond:
      return "cond";
    case Branch::kUncond:
      return "uncond";
    case Branch::kPerturbed:
      return "perturbed";
    case Branch::kSource:
      return "source";
  }
  return "";
}

}  // namespace strobe
