#include "core/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "core/error.h"
#include "core/output_file.h"
#include "core/torch.h"

namespace strobe {
namespace {

int flock_now(int descriptor) {
  int code = 0;
  while ((code = ::flock(descriptor, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) {
  }
  return code == 0 ? 0 : errno;
}

// Whether the path still leads to the open file; the last holder may have removed it before we had the lock.
bool is_at(const std::filesystem::path& path, int descriptor) {
  struct stat by_path {
  }, by_descriptor{};
  return ::fstat(descriptor, &by_descriptor) == 0 && ::lstat(path.c_str(), &by_path) == 0 &&
         by_path.st_dev == by_descriptor.st_dev && by_path.st_ino == by_descriptor.st_ino;
}

}  // namespace

std::optional<LockFile> LockFile::try_lock(const std::filesystem::path& path) {
  while (true) {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor < 0) throw_system("open", path, errno);
    if (const int code = flock_now(descriptor); code != 0) {
      ::close(descriptor);
      if (code == EWOULDBLOCK) return {};
      throw_system("flock", path, code);
    }
    if (!is_at(path, descriptor)) {
      ::close(descriptor);
      continue;
    }
    LockFile lock(path, descriptor);
    if (::ftruncate(descriptor, 0) != 0) throw_system("ftruncate", path, errno);
    const std::string text = fmt::format("{}\n", ::getpid());
    write_all(descriptor, text.data(), text.size(), path);
    return lock;
  }
}

std::optional<pid_t> LockFile::holder_of(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) return {};
  std::array<char, 32> text{};
  const ssize_t count = ::read(descriptor, text.data(), text.size());
  ::close(descriptor);
  pid_t holder = 0;
  const char* end = text.data() + std::max<ssize_t>(count, 0);
  const auto [rest, error] = std::from_chars(text.data(), end, holder);
  if (error != std::errc() || rest == end || *rest != '\n') return {};
  return holder;
}

LockFile::LockFile(LockFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

LockFile& LockFile::operator=(LockFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

LockFile::~LockFile() {
  if (descriptor_ < 0) return;
  // Only then: whoever opened the file before finds that the path no longer leads to it.
  if (is_at(path_, descriptor_)) ::unlink(path_.c_str());
  ::close(descriptor_);
}

std::filesystem::path lock_beside(const std::filesystem::path& target) {
  return folder_of(target) / fmt::format(".{}.lock", target.filename().string());
}

}  // namespace strobe
