#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/torch.h"
#include "weights/dtypes.h"
#include "weights/safetensors.h"
#include "weights/safetensors_header.h"

namespace strobe::weights {
namespace {

namespace fs = std::filesystem;

// A file under a temporary name beside its final one; removed unless committed.
class PendingFile {
 public:
  explicit PendingFile(const fs::path& path) : path_(path) {
    static std::atomic<int> counter{0};
    pending_ = path;
    pending_ += fmt::format(".{}-{}.part", ::getpid(), counter++);
    descriptor_ = ::open(pending_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) throw_io("open", pending_);
  }
  ~PendingFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!committed_) ::unlink(pending_.c_str());
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void write(const void* data, size_t size) {
    const char* next = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t written = ::write(descriptor_, next, size);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) throw_io("write", pending_);
      next += written;
      size -= static_cast<size_t>(written);
    }
  }

  void commit() {
    if (::fsync(descriptor_) != 0) throw_io("fsync", pending_);
    const int descriptor = std::exchange(descriptor_, -1);
    if (::close(descriptor) != 0) throw_io("close", pending_);
    if (::rename(pending_.c_str(), path_.c_str()) != 0) throw_io("rename", path_);
    committed_ = true;
    // The new name itself survives a power cut only once its folder is on disk; some file systems cannot do that.
    const fs::path folder = path_.parent_path().empty() ? fs::path(".") : path_.parent_path();
    const int folder_descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_descriptor < 0) return;
    ::fsync(folder_descriptor);
    ::close(folder_descriptor);
  }

 private:
  [[noreturn]] static void throw_io(const char* call, const fs::path& path) {
    throw IoError(fmt::format("{}: {}: {}", path.string(), call, std::strerror(errno)));
  }

  fs::path path_;
  fs::path pending_;
  int descriptor_ = -1;
  bool committed_ = false;
};

std::string make_header(const fs::path& path, const std::map<std::string, at::Tensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  // Keeps the order of insertion, which is that of the names.
  nlohmann::ordered_json::object_t header;
  if (!metadata.empty()) header.emplace_back(kSafetensorsMetadataKey, metadata);
  uint64_t position = 0;
  for (const auto& [name, tensor] : tensors) {
    if (name == kSafetensorsMetadataKey) throw WeightError(fmt::format("{}: {}: a reserved name", path.string(), name));
    if (!tensor.defined()) throw WeightError(fmt::format("{}: {}: an undefined tensor", path.string(), name));
    const Dtype* dtype = find_dtype(tensor.scalar_type());
    if (!dtype) {
      throw WeightError(fmt::format("{}: {}: dtype {} cannot be stored (expected one of {})", path.string(), name,
                                    at::toString(tensor.scalar_type()), kDtypeNames));
    }
    const uint64_t end = position + static_cast<uint64_t>(tensor.numel()) * dtype->bytes;
    nlohmann::ordered_json entry;
    entry["dtype"] = dtype->safetensors_name;
    entry["shape"] = tensor.sizes().vec();
    entry["data_offsets"] = {position, end};
    header.emplace_back(name, std::move(entry));
    position = end;
  }
  std::string text;
  try {
    text = nlohmann::ordered_json(std::move(header)).dump();
  } catch (const nlohmann::json::exception&) {
    throw WeightError(fmt::format("{}: a tensor's name or the metadata is not UTF-8", path.string()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxSafetensorsHeaderBytes) {
    throw WeightError(fmt::format("{}: a header of {} bytes, the limit is {}", path.string(), text.size(),
                                  kMaxSafetensorsHeaderBytes));
  }
  return text;
}

}  // namespace

void save_safetensors(const fs::path& path, const std::map<std::string, at::Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(path, tensors, metadata);
  PendingFile file(path);
  const uint64_t length = header.size();
  file.write(&length, sizeof(length));
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor stored = tensor.detach().to(at::kCPU).contiguous();
    file.write(stored.const_data_ptr(), stored.nbytes());
  }
  file.commit();
}

}  // namespace strobe::weights
