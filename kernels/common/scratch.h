// Memory that a thread keeps between kernel calls.
#pragma once

#include <cstddef>

namespace strobe::kernels {

// Grows, never shrinks; pages are huge where the system has them (fresh 4 KB pages cost more than a sparse kernel) and
// zero at first. The bytes after a call of `reserve` that grew are not those before it.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Aligned to 4,096 bytes, valid until the next call. Throws std::bad_alloc.
  void* reserve(size_t bytes);
  size_t capacity() const { return capacity_; }

 private:
  void* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace strobe::kernels
