// Random numbers that are a function of their place: (seed, index, stream) and how many were drawn before.
//
// Contract  No state outlives the object, so that any item of a data set can be drawn by itself, in any order, on any
//           thread, and again after a restart. The same numbers on every machine; not for secrets.
// Source    The output mix of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)
//           over a counter; the key is three rounds of the same mix.
#pragma once

#include <cstdint>

namespace strobe {

// One round of SplitMix64: a bijection of 64 bits that spreads every bit over all.
constexpr uint64_t mix_bits(uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31U);
}

class CounterRandom {
 public:
  explicit CounterRandom(uint64_t seed, uint64_t index = 0, uint64_t stream = 0)
      : key_(mix_bits(mix_bits(mix_bits(seed) ^ index) ^ stream)) {}

  uint64_t bits() { return mix_bits(key_ + counter_++ * 0x9e3779b97f4a7c15U); }
  // In [0, 1), a multiple of 2^-53.
  double uniform() { return static_cast<double>(bits() >> 11U) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  // In [0, count); the bias of at most count / 2^64 is below anything that a data set can show.
  uint64_t below(uint64_t count) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(bits()) * count) >> 64U);
  }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace strobe
