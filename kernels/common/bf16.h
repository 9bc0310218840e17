// bfloat16 <-> float, for portable code and for files of any instruction set (static: one copy for each).
#pragma once

#include <cstdint>
#include <cstring>

namespace strobe::kernels {

static inline float widen_bf16(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result = 0;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// To nearest, ties to even; a NaN stays one.
static inline uint16_t narrow_to_bf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace strobe::kernels
