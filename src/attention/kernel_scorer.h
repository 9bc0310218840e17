// The Scorer of our kernels, on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "attention/scorer.h"

namespace strobe::attention {

// Kernels for CPU tensors of float32 and bfloat16, LibTorch's products elsewhere and where no fast kernel can run.
std::unique_ptr<Scorer> make_scorer();

}  // namespace strobe::attention
