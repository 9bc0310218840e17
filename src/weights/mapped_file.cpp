#include "weights/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/error.h"
#include "core/torch.h"

namespace strobe::weights {
namespace {

struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // Non-blocking, so that a pipe of that name is refused rather than waited on.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.value < 0) throw_system("open", path, errno);
  struct stat status {};
  if (::fstat(file.value, &status) != 0) throw_system("fstat", path, errno);
  if (!S_ISREG(status.st_mode)) throw IoError(fmt::format("{}: not a regular file", path.string()));

  std::shared_ptr<MappedFile> mapped(new MappedFile);
  if (status.st_size == 0) return mapped;
  const size_t size = static_cast<size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (address == MAP_FAILED) throw_system("mmap", path, errno);
  mapped->address_ = address;
  mapped->size_ = size;
  return mapped;
}

namespace {

// The range moved inwards or outwards to whole pages, and advised.
void advise(void* address, size_t size, uint64_t begin, uint64_t count, int advice, bool is_inward) {
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  uint64_t end = std::min<uint64_t>(begin + count, size);
  begin = is_inward ? (begin + page - 1) / page * page : begin / page * page;
  if (is_inward && end < size) end = end / page * page;
  if (address && begin < end) ::madvise(static_cast<char*>(address) + begin, end - begin, advice);
}

}  // namespace

void MappedFile::prefetch(uint64_t begin, uint64_t size) const {
  advise(address_, size_, begin, size, MADV_WILLNEED, /*is_inward=*/false);
}

void MappedFile::release(uint64_t begin, uint64_t size) const {
  advise(address_, size_, begin, size, MADV_DONTNEED, /*is_inward=*/true);
}

uint64_t MappedView::bytes() const {
  uint64_t extent = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return 0;
    extent += static_cast<uint64_t>((shape[i] - 1) * strides[i]);
  }
  return extent * c10::elementSize(dtype);
}

MappedFile::~MappedFile() {
  if (address_) ::munmap(address_, size_);
}

std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(shape[i], 1);
  return strides;
}

at::Tensor make_tensor(const std::shared_ptr<const MappedFile>& file, const MappedView& view, const std::string& what) {
  const at::TensorOptions options = at::TensorOptions().dtype(view.dtype);
  int64_t extent = 1;
  bool is_contiguous = true;
  const std::vector<int64_t> dense = contiguous_strides(view.shape);
  for (size_t i = 0; i < view.shape.size(); ++i) {
    if (view.shape[i] == 0) return at::empty(view.shape, options);
    extent += (view.shape[i] - 1) * view.strides[i];
    is_contiguous &= view.shape[i] == 1 || view.strides[i] == dense[i];
  }
  const size_t element_bytes = c10::elementSize(view.dtype);
  const char* data = file->bytes().data() + view.begin;
  const size_t extent_bytes = static_cast<size_t>(extent) * element_bytes;
  if (view.dtype == at::kBool && std::any_of(data, data + extent_bytes, [](char byte) { return (byte & ~1) != 0; })) {
    throw WeightError(fmt::format("{}: a BOOL byte is neither 0 nor 1", what));
  }
  at::Tensor elements;
  if (reinterpret_cast<uintptr_t>(data) % element_bytes == 0) {
    // LibTorch takes a pointer to mutable data; the mapping is read-only and stays so.
    elements = at::from_blob(
        const_cast<char*>(data), {extent}, [file](void*) {}, options);
  } else {
    elements = at::empty({extent}, options);
    std::memcpy(elements.mutable_data_ptr(), data, extent_bytes);
  }
  if (is_contiguous) return elements.view(view.shape);
  return elements.as_strided(view.shape, view.strides).contiguous();
}

}  // namespace strobe::weights
