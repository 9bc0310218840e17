#include "video/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/torch.h"

namespace strobe::video {
namespace {

[[noreturn]] void throw_system(std::string_view call, const std::filesystem::path& path, int code) {
  throw IoError(fmt::format("{}: {}: {}", path.string(), call, std::strerror(code)));
}

class FileDescriptor {
 public:
  FileDescriptor(const std::filesystem::path& path, int flags) : path_(path) {
    fd_ = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    if (fd_ < 0) throw_system("open", path, errno);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_system("write", path_, errno);
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }
  void sync() {
    // Some file systems have nothing to synchronise and say so.
    if (::fsync(fd_) != 0 && errno != EINVAL && errno != ENOTSUP) throw_system("fsync", path_, errno);
  }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

std::filesystem::path temporary_beside(const std::filesystem::path& target) {
  static std::atomic<int> counter{0};
  return folder_of(target) / fmt::format(".{}.{}-{}.part", target.filename().string(), ::getpid(), counter++);
}

void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& target) {
  FileDescriptor(temporary, O_RDONLY).sync();
  if (std::rename(temporary.c_str(), target.c_str()) != 0) throw_system("rename", target, errno);
  FileDescriptor(folder_of(target), O_RDONLY | O_DIRECTORY).sync();
}

void write_file(const std::filesystem::path& target, std::string_view bytes) {
  const std::filesystem::path temporary = temporary_beside(target);
  try {
    {
      FileDescriptor file(temporary, O_WRONLY | O_CREAT | O_EXCL);
      file.write(bytes);
    }
    publish_file(temporary, target);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void check_folder_writable(const std::filesystem::path& folder) {
  std::error_code error;
  const auto status = std::filesystem::status(folder, error);
  if (!std::filesystem::exists(status)) throw_system("folder", folder, error.value() ? error.value() : ENOENT);
  if (!std::filesystem::is_directory(status)) throw_system("folder", folder, ENOTDIR);
  if (::faccessat(AT_FDCWD, folder.c_str(), W_OK | X_OK, AT_EACCESS) != 0) throw_system("folder", folder, errno);
}

}  // namespace strobe::video
