// Which run of a model a batch row belongs to: what guiders ask for, models lay along the batch and sites carry.
#pragma once

namespace strobe {

enum class Branch { kCond, kUncond, kPerturbed, kSource };

// "cond", "uncond", "perturbed", "source".
const char* branch_name(Branch branch);

}  // namespace strobe
