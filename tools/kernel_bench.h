// Speed of the CPU kernels as shares of the multiply-add peak measured beside them.
#pragma once

namespace strobe {

struct KernelBenchOptions {
  int tokens = 8192;
  int rounds = 7;
  int head_dim = 0;  // 0: 128, 64 and 32
  int workers = 0;   // 0: one, then all
};

void run_kernel_bench(const KernelBenchOptions& options);

}  // namespace strobe
