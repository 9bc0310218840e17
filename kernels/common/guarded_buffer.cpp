#include "kernels/common/guarded_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace strobe::kernels {
namespace {
constexpr size_t kPage = 4096;
constexpr uint8_t kCanary = 0xc7;
}  // namespace

GuardedBuffer::GuardedBuffer(size_t bytes) : size_(bytes) {
  const size_t pages = (bytes + kPage - 1) / kPage;
  map_size_ = (pages + 3) * kPage;  // closed, canaries, data, closed
  void* map = mmap(nullptr, map_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  map_ = static_cast<uint8_t*>(map);
  uint8_t* end = map_ + (pages + 2) * kPage;
  data_ = end - bytes;
  std::memset(map_ + kPage, kCanary, static_cast<uint8_t*>(data_) - (map_ + kPage));
  mprotect(map_, kPage, PROT_NONE);
  mprotect(end, kPage, PROT_NONE);
}

GuardedBuffer::~GuardedBuffer() {
  if (map_) munmap(map_, map_size_);
}

bool GuardedBuffer::is_intact() const {
  return !map_ || std::all_of(map_ + kPage, static_cast<uint8_t*>(data_), [](uint8_t b) { return b == kCanary; });
}

}  // namespace strobe::kernels
