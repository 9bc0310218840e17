#include "attention/kernel_call.h"

#include "core/torch.h"
// After the precompiled header.

#include "core/error.h"
#include "core/parallel.h"

namespace strobe::attention {

kernels::Parallel torch_parallel() {
  // Inside a parallel region parallel_for runs inline: nothing nests.
  return {.workers = at::in_parallel_region() ? 1 : at::get_num_threads(),
          .pool = nullptr,
          .run = [](void*, int tasks, void (*task)(void* argument, int index), void* argument) {
            parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) task(argument, static_cast<int>(i));
            });
          }};
}

kernels::ScalarType kernel_dtype(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return kernels::ScalarType::kFloat32;
  if (tensor.scalar_type() == at::kBFloat16) return kernels::ScalarType::kBFloat16;
  throw UnsupportedError(fmt::format("attention kernels take float32 and bfloat16, not {}", tensor.toString()));
}

kernels::TensorView kernel_view(const at::Tensor& tensor, at::Tensor& holder) {
  holder = tensor.stride(3) == 1 || tensor.size(3) == 1 ? tensor : tensor.contiguous();
  return {.data = holder.data_ptr(),
          .batch_stride = holder.stride(0),
          .head_stride = holder.stride(1),
          .token_stride = holder.stride(2)};
}

}  // namespace strobe::attention
