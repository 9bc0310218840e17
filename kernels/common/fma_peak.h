// The multiply-add peak of this machine, which speeds of kernels are shares of.
//
// Operands stay in registers and 12 accumulators hide the latency. Clocks and neighbours change: measure right before
// and after what is compared with it, in the same process.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/types.h"

namespace strobe::kernels {

struct FmaLoop {
  const char* name;              // fma_fp32_avx2
  double flops_per_round;        // of `run`, multiply and add counted as two
  float (*run)(int64_t rounds);  // the result is nothing but a reason to compute
  bool is_bf16;
};

// What this machine can run (machine()), widest first; never empty.
const std::vector<FmaLoop>& fma_loops();

// FLOP/s of all workers together, by the time their threads ran (neighbours may take the processor away): the best of
// `rounds` short runs of some ms each.
double measure_fma_peak(const FmaLoop& loop, const Parallel& parallel, int rounds = 5);

// The widest loop of the dtype: fp32, or the bf16 dot product where there is one (fp32 otherwise).
const FmaLoop& widest_fma_loop(ScalarType dtype);

}  // namespace strobe::kernels
