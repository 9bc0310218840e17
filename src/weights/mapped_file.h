// A file mapped read-only, and tensors over its bytes.
//
// Limits   A file that is truncated while mapped kills the process on access: replace weights by renaming, as
//          save_safetensors does.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::weights {

class MappedFile {
 public:
  // IoError naming the path, the call and the system's text.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Advice to the system on a range of bytes: read it ahead; drop its pages from memory (those that it fills alone, the
  // mapping stays readable). Both do nothing where the system does not take advice.
  void prefetch(uint64_t begin, uint64_t size) const;
  void release(uint64_t begin, uint64_t size) const;

  std::string_view bytes() const { return {static_cast<const char*>(address_), size_}; }

 private:
  MappedFile() = default;

  void* address_ = nullptr;
  size_t size_ = 0;
};

// Elements inside a mapping; the caller has checked that every one of them lies in the file.
struct MappedView {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements, none negative
  uint64_t begin = 0;            // of the first element, in bytes from the start of the file

  // From the first element to the last.
  uint64_t bytes() const;
};

// The view as a contiguous tensor. It aliases the mapping, and keeps it alive, where the view is contiguous and aligned
// for its dtype; otherwise it is a copy. `what` ("file: tensor") begins the WeightError for BOOL bytes that are not 0
// or 1.
at::Tensor make_tensor(const std::shared_ptr<const MappedFile>& file, const MappedView& view, const std::string& what);

// Strides of a contiguous tensor.
std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& shape);

}  // namespace strobe::weights
