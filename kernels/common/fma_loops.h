// One loop for each instruction set (common/fma_<set>.cpp).
#pragma once

#include <cstdint>

namespace strobe::kernels {

constexpr int kFmaAccumulators = 12;
constexpr int kFmaUnroll = 8;

float run_fma_scalar(int64_t rounds);
float run_fma_avx2(int64_t rounds);
float run_fma_avx512(int64_t rounds);
float run_fma_avx512_bf16(int64_t rounds);

}  // namespace strobe::kernels
