// Types that every kernel family shares. C++17, no dependency.
#pragma once

#include <cstdint>

namespace strobe::kernels {

enum class ScalarType { kFloat32, kBFloat16 };

// A [batch, heads, tokens, width] tensor, width contiguous. Strides count elements.
struct TensorView {
  const void* data = nullptr;
  int64_t batch_stride = 0;
  int64_t head_stride = 0;
  int64_t token_stride = 0;
};

struct MutableTensorView {
  void* data = nullptr;
  int64_t batch_stride = 0;
  int64_t head_stride = 0;
  int64_t token_stride = 0;
};

// How a kernel gets its threads: the host's pool, so that nothing is started per call and nothing nests.
// `run(pool, tasks, task, argument)` calls task(argument, i) for i in [0, tasks), on up to `workers` threads at once,
// and returns when all are done. One task a worker is the usual call; tasks then claim tiles from a shared counter.
struct Parallel {
  int workers = 1;
  void* pool = nullptr;
  void (*run)(void* pool, int tasks, void (*task)(void* argument, int index),
              void* argument) = nullptr;  // null: inline
};

}  // namespace strobe::kernels
