#include "pipelines/fingerprint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "core/error.h"
#include "core/torch.h"
#include "video/sha256.h"

namespace strobe::pipelines {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWhole = uint64_t{16} << 20;
constexpr uint64_t kHead = uint64_t{1} << 20;
constexpr uint64_t kTail = uint64_t{64} << 10;
constexpr uint64_t kEvery = uint64_t{4} << 20;
constexpr uint64_t kSample = uint64_t{4} << 10;

class Reader {
 public:
  explicit Reader(const fs::path& path) : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) fail("open");
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) fail("stat");
    bytes_ = static_cast<uint64_t>(status.st_size);
  }
  ~Reader() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  uint64_t bytes() const { return bytes_; }

  void add(video::Sha256& hash, uint64_t begin, uint64_t count) {
    std::vector<char> buffer(std::min<uint64_t>(count, kHead));
    while (count > 0) {
      const ssize_t got =
          ::pread(descriptor_, buffer.data(), std::min<uint64_t>(count, buffer.size()), static_cast<off_t>(begin));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) fail("read");
      hash.update(buffer.data(), static_cast<size_t>(got));
      begin += static_cast<uint64_t>(got);
      count -= static_cast<uint64_t>(got);
    }
  }

 private:
  [[noreturn]] void fail(const char* call) const { throw_system(call, path_, errno); }
  fs::path path_;
  int descriptor_ = -1;
  uint64_t bytes_ = 0;
};

void add_file(video::Sha256& hash, const fs::path& path, const std::string& name) {
  Reader file(path);
  hash.update(fmt::format("{}\n{}\n", name, file.bytes()));
  if (file.bytes() <= kWhole) {
    file.add(hash, 0, file.bytes());
    return;
  }
  file.add(hash, 0, kHead);
  for (uint64_t at = kEvery; at + kSample + kTail <= file.bytes(); at += kEvery) file.add(hash, at, kSample);
  file.add(hash, file.bytes() - kTail, kTail);
}

bool counts(const fs::path& path) {
  static const std::vector<std::string> kExtensions = {".safetensors", ".json", ".pth",   ".pt",
                                                       ".bin",         ".ckpt", ".model", ".txt"};
  return std::find(kExtensions.begin(), kExtensions.end(), path.extension().string()) != kExtensions.end();
}

}  // namespace

std::string fingerprint(const fs::path& file_or_folder) {
  video::Sha256 hash;
  std::error_code error;
  if (!fs::is_directory(file_or_folder, error)) {
    add_file(hash, file_or_folder, "");
    return hash.finish();
  }
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(file_or_folder)) {
    if (entry.is_regular_file() && counts(entry.path())) {
      files.emplace(entry.path().lexically_relative(file_or_folder).string(), entry.path());
    }
  }
  for (const auto& [name, path] : files) add_file(hash, path, name);
  return hash.finish();
}

}  // namespace strobe::pipelines
