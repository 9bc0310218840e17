#include "kernels/common/machine.h"

#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace strobe::kernels {
namespace {

#if defined(__x86_64__)
struct CpuId {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

CpuId cpuid(unsigned leaf, unsigned subleaf) {
  CpuId r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool bit(unsigned value, int index) { return (value >> index & 1U) != 0; }

unsigned long long saved_register_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

void probe_x86(Machine& m) {
  char name[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    CpuId r = cpuid(0x80000002U + i, 0);
    std::memcpy(name + 16 * i, &r, 16);
  }
  m.cpu_name = name;
  const CpuId one = cpuid(1, 0);
  if (!bit(one.c, 27)) return;  // no XGETBV: the OS saves nothing beyond xmm
  const unsigned long long saved = saved_register_state();
  const bool saves_ymm = (saved & 0x6) == 0x6;
  const bool saves_zmm = (saved & 0xe6) == 0xe6;
  const bool saves_tiles = (saved & 0x60000) == 0x60000;
  const CpuId seven = cpuid(7, 0);
  const CpuId seven_one = cpuid(7, 1);
  m.has_avx2 = saves_ymm && bit(one.c, 12) && bit(seven.b, 5);
  m.has_avx512 = saves_zmm && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 30) && bit(seven.b, 31);
  m.has_avx512_bf16 = m.has_avx512 && bit(seven_one.a, 5);
  m.has_amx_bf16 = saves_tiles && bit(seven.d, 24) && bit(seven.d, 22);
}
#endif

}  // namespace

Machine probe_machine(const char* mask) {
  Machine m;
#if defined(__x86_64__)
  probe_x86(m);
#endif
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) m.cores = CPU_COUNT(&set);
  std::istringstream words(mask ? mask : "");
  for (std::string word; std::getline(words, word, ',');) {
    if (word.empty()) continue;
    if (word == "no-avx2") {
      m.has_avx2 = m.has_avx512 = m.has_avx512_bf16 = m.has_amx_bf16 = false;
    } else if (word == "no-avx512") {
      m.has_avx512 = m.has_avx512_bf16 = m.has_amx_bf16 = false;
    } else if (word == "no-bf16") {
      m.has_avx512_bf16 = m.has_amx_bf16 = false;
    } else if (word == "no-gpu") {
      m.is_gpu_masked = true;
    } else {
      m.unknown_masks.push_back(word);
      continue;
    }
    m.masked.push_back(word.substr(3));
  }
  return m;
}

std::string missing_feature(bool Machine::*feature) {
  if (feature == &Machine::has_avx2) return "needs AVX2 and FMA";
  if (feature == &Machine::has_avx512) return "needs AVX-512 (F, BW, DQ, VL)";
  return "needs AVX-512 with BF16";
}

std::string head_dim_refusal(int head_dim, int limit) {
  return "head width " + std::to_string(head_dim) + ", has up to " + std::to_string(limit);
}

const Machine& machine() {
  static const Machine instance = probe_machine(std::getenv("STROBE_MACHINE"));
  return instance;
}

}  // namespace strobe::kernels
