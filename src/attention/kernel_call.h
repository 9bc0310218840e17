// Between tensors and the plain structs of kernels/.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/common/types.h"

namespace strobe::attention {

// LibTorch's own threads, one task each.
kernels::Parallel torch_parallel();

// float32 or bfloat16; UnsupportedError otherwise.
kernels::ScalarType kernel_dtype(const at::Tensor& tensor);

// [B, H, N, D] with D contiguous; a copy is made in `holder` where it is not.
kernels::TensorView kernel_view(const at::Tensor& tensor, at::Tensor& holder);

}  // namespace strobe::attention
