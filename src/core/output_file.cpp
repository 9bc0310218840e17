#include "core/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/torch.h"

namespace strobe {
namespace {

[[noreturn]] void throw_system(std::string_view call, const std::filesystem::path& path, int code) {
  throw IoError(fmt::format("{}: {}: {}", path.string(), call, std::strerror(code)));
}

int open_file(const std::filesystem::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_system("open", path, errno);
  return descriptor;
}

void sync(int descriptor, const std::filesystem::path& path) {
  // Some file systems have nothing to synchronise and say so.
  if (::fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP) throw_system("fsync", path, errno);
}

void sync_path(const std::filesystem::path& path, int flags) {
  const int descriptor = open_file(path, flags);
  try {
    sync(descriptor, path);
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  ::close(descriptor);
}

void rename_and_sync(const std::filesystem::path& temporary, const std::filesystem::path& target) {
  if (std::rename(temporary.c_str(), target.c_str()) != 0) throw_system("rename", target, errno);
  // The new name itself survives a power cut only once its folder is on disk.
  sync_path(folder_of(target), O_RDONLY | O_DIRECTORY);
}

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& target)
    : target_(target),
      temporary_(temporary_beside(target)),
      descriptor_(open_file(temporary_, O_WRONLY | O_CREAT | O_EXCL)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!is_published_) ::unlink(temporary_.c_str());
}

void OutputFile::write(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_system("write", target_, errno);
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void OutputFile::skip(uint64_t bytes) {
  // Moved on first: a hole at the end of the file exists only by the file's length.
  const off_t end = ::lseek(descriptor_, static_cast<off_t>(bytes), SEEK_CUR);
  if (end < 0) throw_system("lseek", target_, errno);
  if (::ftruncate(descriptor_, end) != 0) throw_system("ftruncate", target_, errno);
}

void OutputFile::publish() {
  sync(descriptor_, target_);
  if (::close(std::exchange(descriptor_, -1)) != 0) throw_system("close", target_, errno);
  rename_and_sync(temporary_, target_);
  is_published_ = true;
}

void write_file(const std::filesystem::path& target, std::string_view bytes) {
  OutputFile file(target);
  file.write(bytes.data(), bytes.size());
  file.publish();
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

std::filesystem::path temporary_beside(const std::filesystem::path& target) {
  static std::atomic<int> counter{0};
  return folder_of(target) / fmt::format(".{}.{}-{}.part", target.filename().string(), ::getpid(), counter++);
}

void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& target) {
  sync_path(temporary, O_RDONLY);
  rename_and_sync(temporary, target);
}

void check_folder_writable(const std::filesystem::path& folder) {
  std::error_code error;
  const auto status = std::filesystem::status(folder, error);
  if (!std::filesystem::exists(status)) throw_system("folder", folder, error.value() ? error.value() : ENOENT);
  if (!std::filesystem::is_directory(status)) throw_system("folder", folder, ENOTDIR);
  const std::filesystem::path probe = temporary_beside(folder / "writable");
  const int descriptor = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) throw IoError(fmt::format("{}: cannot write here: {}", folder.string(), std::strerror(errno)));
  ::close(descriptor);
  ::unlink(probe.c_str());
}

}  // namespace strobe
