// Loops over LibTorch's threads.
//
// Contract  As at::parallel_for: `body(begin, end)` for pieces of [begin, end) of at least `grain`, on at most
//           at::get_num_threads() threads; inline inside another parallel region.
// Why       at::parallel_for is a template that is parallel only where it is compiled with OpenMP, and silently serial
//           elsewhere. One source is compiled so, and everything else calls it.
#pragma once

#include <cstdint>
#include <functional>

namespace strobe {

void parallel_for(int64_t begin, int64_t end, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace strobe
