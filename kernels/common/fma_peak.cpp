#include "kernels/common/fma_peak.h"

#include <algorithm>
#include <ctime>

#include "kernels/common/fma_loops.h"
#include "kernels/common/machine.h"
#include "kernels/common/parallel.h"

namespace strobe::kernels {

namespace {
double thread_seconds() {
  timespec t = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
}  // namespace

float run_fma_scalar(int64_t rounds) {
  float sum[kFmaAccumulators];
  for (int i = 0; i < kFmaAccumulators; ++i) sum[i] = static_cast<float>(i);
  for (int64_t r = 0; r < rounds * kFmaUnroll; ++r) {
    for (float& s : sum) s = s * 0.5F + 0.25F;
  }
  float total = 0;
  for (float s : sum) total += s;
  return total;
}

const std::vector<FmaLoop>& fma_loops() {
  static const std::vector<FmaLoop> loops = [] {
    constexpr double kFlops = 2.0 * kFmaAccumulators * kFmaUnroll;
    std::vector<FmaLoop> list;
#ifdef STROBE_HAS_AVX512_KERNELS
    if (machine().has_avx512_bf16) list.push_back({"fma_bf16_avx512", kFlops * 32, run_fma_avx512_bf16, true});
    if (machine().has_avx512) list.push_back({"fma_fp32_avx512", kFlops * 16, run_fma_avx512, false});
#endif
#ifdef STROBE_HAS_AVX2_KERNELS
    if (machine().has_avx2) list.push_back({"fma_fp32_avx2", kFlops * 8, run_fma_avx2, false});
#endif
    list.push_back({"fma_fp32_scalar", kFlops, run_fma_scalar, false});
    return list;
  }();
  return loops;
}

const FmaLoop& widest_fma_loop(ScalarType dtype) {
  for (const FmaLoop& loop : fma_loops()) {
    if (!loop.is_bf16 || dtype == ScalarType::kBFloat16) return loop;
  }
  return fma_loops().back();
}

double measure_fma_peak(const FmaLoop& loop, const Parallel& parallel, int rounds) {
  const auto run = [&](int64_t count) {
    std::vector<double> rates(parallel.workers);
    auto task = [&](int worker) {
      const double start = thread_seconds();
      volatile float sink = loop.run(count);  // looked at, so that no loop is left out
      (void)sink;
      rates[worker] = loop.flops_per_round * static_cast<double>(count) / (thread_seconds() - start);
    };
    run_tasks(parallel, parallel.workers, task);
    double total = 0;
    for (double rate : rates) total += rate;
    return total;
  };
  int64_t count = 1000;
  while (static_cast<double>(count) * loop.flops_per_round * parallel.workers / run(count) < 4e-3) count *= 2;
  double best = run(count);
  for (int i = 1; i < rounds; ++i) best = std::max(best, run(count));
  return best;
}

}  // namespace strobe::kernels
