// What this CPU can do, probed once. C++17, no dependency.
//
// STROBE_MACHINE=no-avx512,no-bf16 masks features, so that tests can run every path on one machine.
#pragma once

#include <string>
#include <vector>

namespace strobe::kernels {

struct Machine {
  std::string cpu_name;
  int cores = 1;            // logical processors this process may use
  bool has_avx2 = false;    // AVX2 and FMA, and the operating system saves ymm registers
  bool has_avx512 = false;  // F, BW, DQ, VL, and the operating system saves zmm registers
  bool has_avx512_bf16 = false;
  bool has_amx_bf16 = false;
  bool is_gpu_masked = false;              // STROBE_MACHINE=no-gpu
  std::vector<std::string> masked;         // features switched off by STROBE_MACHINE
  std::vector<std::string> unknown_masks;  // names in STROBE_MACHINE that mean nothing here

  bool has_fast_bf16() const { return has_avx512_bf16 || has_amx_bf16; }
};

// Reads STROBE_MACHINE and the CPU on the first call; the same object ever after. Thread-safe.
const Machine& machine();

// Why a kernel that needs `feature` refuses: «needs AVX2 and FMA».
std::string missing_feature(bool Machine::*feature);

// «head width 300, has up to 256».
std::string head_dim_refusal(int head_dim, int limit);

// The probe itself, with the mask as text (null: none). For tests.
Machine probe_machine(const char* mask);

}  // namespace strobe::kernels
