#include "kernels/common/scratch.h"

#include <sys/mman.h>

#include <new>

namespace strobe::kernels {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

Scratch::~Scratch() {
  if (data_) munmap(data_, capacity_);
}

void* Scratch::reserve(size_t bytes) {
  if (bytes <= capacity_) return data_;
  if (data_) munmap(data_, capacity_);
  data_ = nullptr;
  capacity_ = 0;
  // A huge page more, so that the start can be aligned to one; the ends are given back.
  const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* raw = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  char* begin = static_cast<char*>(raw);
  const size_t skip = (kHugePage - reinterpret_cast<size_t>(begin) % kHugePage) % kHugePage;
  if (skip > 0) munmap(begin, skip);
  if (skip < kHugePage) munmap(begin + skip + size, kHugePage - skip);
  data_ = begin + skip;
  capacity_ = size;
  madvise(data_, capacity_, MADV_HUGEPAGE);
  return data_;
}

}  // namespace strobe::kernels
