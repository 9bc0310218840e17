// Memory for tests: what lies beyond it cannot be touched unnoticed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace strobe::kernels {

// The last byte lies right before a page that may not be read or written; the bytes before the first are canaries.
class GuardedBuffer {
 public:
  GuardedBuffer() = default;
  explicit GuardedBuffer(size_t bytes);
  ~GuardedBuffer();
  GuardedBuffer(GuardedBuffer&& other) noexcept { swap(other); }
  GuardedBuffer& operator=(GuardedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  void* data() const { return data_; }
  size_t size() const { return size_; }
  bool is_intact() const;  // all canaries as they were

 private:
  void swap(GuardedBuffer& other) {
    std::swap(map_, other.map_);
    std::swap(map_size_, other.map_size_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  uint8_t* map_ = nullptr;
  size_t map_size_ = 0;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace strobe::kernels
