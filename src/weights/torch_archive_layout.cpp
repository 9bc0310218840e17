#include "weights/torch_archive_layout.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "weights/dtypes.h"
#include "weights/tensor_pickle.h"
#include "weights/zip_directory.h"

namespace strobe::weights {
namespace {

constexpr std::string_view kPickleEnding = "/data.pkl";
// Thousands of tensors make a pickle of a megabyte; the machine needs some fifty times its size.
constexpr size_t kMaxPickleBytes = size_t{64} << 20;

using Entries = std::map<std::string_view, std::string_view>;

// The archive's top folder: PyTorch names it after the file.
std::string_view find_folder(const Entries& entries, const std::string& file) {
  std::string_view folder;
  bool is_found = false;
  for (const auto& [name, bytes] : entries) {
    if (!name.ends_with(kPickleEnding) || name.find('/') != name.size() - kPickleEnding.size()) continue;
    if (is_found) throw WeightError(fmt::format("{}: two data.pkl", file));
    folder = name.substr(0, name.size() - kPickleEnding.size());
    is_found = true;
  }
  if (!is_found) throw WeightError(fmt::format("{}: no data.pkl: not written by torch.save", file));
  return folder;
}

// Index of the last element in the storage; nullopt on overflow. No axis is empty.
std::optional<int64_t> last_element(const PickledTensor& tensor) {
  int64_t last = tensor.offset;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    int64_t step = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &step)) return std::nullopt;
    if (__builtin_add_overflow(last, step, &last)) return std::nullopt;
  }
  return last;
}

// Byte offset of the first element in the storage.
uint64_t check_tensor(const PickledTensor& tensor, size_t storage_bytes, const std::string& what) {
  auto fail = [&](std::string_view message) { throw WeightError(fmt::format("{}: {}", what, message)); };
  const uint64_t element_bytes = find_dtype(tensor.dtype)->bytes;
  if (tensor.storage_numel < 0 || storage_bytes % element_bytes != 0 ||
      static_cast<uint64_t>(tensor.storage_numel) != storage_bytes / element_bytes) {
    fail(fmt::format("its storage should have {} elements of {} bytes, the archive has {} bytes", tensor.storage_numel,
                     element_bytes, storage_bytes));
  }
  if (tensor.shape.size() != tensor.strides.size()) fail("shape and strides of different length");
  auto is_negative = [](int64_t value) { return value < 0; };
  if (tensor.offset < 0 || std::any_of(tensor.shape.begin(), tensor.shape.end(), is_negative) ||
      std::any_of(tensor.strides.begin(), tensor.strides.end(), is_negative)) {
    fail("a negative offset, size or stride");
  }
  const std::optional<int64_t> numel = checked_numel(tensor.shape, element_bytes);
  if (!numel) fail("shape: the number of bytes overflows");
  if (*numel == 0) return 0;
  // Keeps a repeated element (stride 0) from growing into more memory than the file has.
  if (*numel > tensor.storage_numel) fail("more elements than its storage");
  const std::optional<int64_t> last = last_element(tensor);
  if (!last || *last >= tensor.storage_numel) fail("offset, shape and strides go beyond its storage");
  return static_cast<uint64_t>(tensor.offset) * element_bytes;
}

}  // namespace

std::vector<ArchiveTensor> parse_torch_archive(std::string_view archive, const std::string& file) {
  const Entries entries = read_zip_directory(archive, file);
  const std::string folder(find_folder(entries, file));
  if (auto order = entries.find(folder + "/byteorder"); order != entries.end() && order->second != "little") {
    throw WeightError(fmt::format("{}: byte order '{}', only little is read", file, order->second.substr(0, 16)));
  }
  const std::string_view pickle = entries.at(folder + std::string(kPickleEnding));
  if (pickle.size() > kMaxPickleBytes) {
    throw WeightError(fmt::format("{}: data.pkl: {} bytes, the limit is {}", file, pickle.size(), kMaxPickleBytes));
  }

  std::vector<ArchiveTensor> tensors;
  for (PickledTensor& pickled : read_tensor_pickle(pickle, file)) {
    const std::string what = fmt::format("{}: {}", file, pickled.name.substr(0, 200));
    const std::string entry_name = fmt::format("{}/data/{}", folder, pickled.storage_key);
    auto storage = entries.find(entry_name);
    if (storage == entries.end()) throw WeightError(fmt::format("{}: no entry {}", what, entry_name.substr(0, 200)));
    const uint64_t offset = check_tensor(pickled, storage->second.size(), what);
    const uint64_t begin = static_cast<uint64_t>(storage->second.data() - archive.data()) + offset;
    tensors.push_back(
        {std::string(pickled.name), pickled.dtype, std::move(pickled.shape), std::move(pickled.strides), begin});
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const ArchiveTensor& a, const ArchiveTensor& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors.size(); ++i) {
    if (tensors[i].name == tensors[i - 1].name) {
      throw WeightError(fmt::format("{}: {}: the name stands twice", file, tensors[i].name.substr(0, 200)));
    }
  }
  return tensors;
}

}  // namespace strobe::weights
