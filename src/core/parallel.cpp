#include "core/parallel.h"

#include <ATen/Parallel.h>

#ifndef _OPENMP
#error "this file has to be compiled with OpenMP: LibTorch's parallel_for is serial without it"
#endif

namespace strobe {

void parallel_for(int64_t begin, int64_t end, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  at::parallel_for(begin, end, grain, body);
}

}  // namespace strobe
