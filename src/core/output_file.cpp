#include "core/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "core/error.h"
#include "core/torch.h"

namespace strobe {
namespace {

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

// Unknown to the file system, or to the kernel at all.
bool is_missing_call(int code) {
  return code == EINVAL || code == ENOSYS || code == ENOTSUP || code == EOPNOTSUPP || code == EPERM;
}

// 0 or the system's code; EEXIST if the target is there.
int rename_new(const std::filesystem::path& temporary, const std::filesystem::path& target) {
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (!is_missing_call(errno)) return errno;
  if (::link(temporary.c_str(), target.c_str()) == 0) {
    ::unlink(temporary.c_str());
    return 0;
  }
  if (!is_missing_call(errno)) return errno;
  // No hard links either: only here can a file that appears between the two calls be lost.
  struct stat status {};
  if (::lstat(target.c_str(), &status) == 0) return EEXIST;
  return std::rename(temporary.c_str(), target.c_str()) == 0 ? 0 : errno;
}

void rename_and_sync(const std::filesystem::path& temporary, const std::filesystem::path& target, Replace replace) {
  if (replace == Replace::kAllowed) {
    if (std::rename(temporary.c_str(), target.c_str()) != 0) throw_system("rename", target, errno);
  } else if (const int code = rename_new(temporary, target); code == EEXIST) {
    throw IoError(fmt::format("{}: exists already; another program made it meanwhile", target.string()));
  } else if (code != 0) {
    throw_system("rename", target, code);
  }
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

void OutputFile::write(const void* data, size_t bytes) { write_all(descriptor_, data, bytes, target_); }

void OutputFile::skip(uint64_t bytes) {
  // Moved on first: a hole at the end of the file exists only by the file's length.
  const off_t end = ::lseek(descriptor_, static_cast<off_t>(bytes), SEEK_CUR);
  if (end < 0) throw_system("lseek", target_, errno);
  if (::ftruncate(descriptor_, end) != 0) throw_system("ftruncate", target_, errno);
}

void OutputFile::publish(Replace replace) {
  sync(descriptor_, target_);
  if (::close(std::exchange(descriptor_, -1)) != 0) throw_system("close", target_, errno);
  rename_and_sync(temporary_, target_, replace);
  is_published_ = true;
}

OutputFolder::OutputFolder(const std::filesystem::path& target)
    : target_(target.has_filename() ? target : target.parent_path()), temporary_(temporary_beside(target_)) {
  std::error_code error;
  if (std::filesystem::exists(target_, error) &&
      (!std::filesystem::is_directory(target_, error) || !std::filesystem::is_empty(target_, error))) {
    throw ConfigError(fmt::format("{}: exists already and is not an empty folder", target_.string()));
  }
  if (::mkdir(temporary_.c_str(), 0777) != 0) throw_system("mkdir", target_, errno);
}

OutputFolder::~OutputFolder() {
  std::error_code error;
  std::filesystem::remove_all(temporary_, error);
}

void OutputFolder::publish() { rename_and_sync(temporary_, target_, Replace::kAllowed); }

void write_all(int descriptor, const void* data, size_t bytes, const std::filesystem::path& named) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_system("write", named, errno);
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void write_file(const std::filesystem::path& target, std::string_view bytes, Replace replace) {
  OutputFile file(target);
  file.write(bytes.data(), bytes.size());
  file.publish(replace);
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

std::filesystem::path temporary_beside(const std::filesystem::path& target) {
  static std::atomic<int> counter{0};
  return folder_of(target) / fmt::format(".{}.{}-{}.part", target.filename().string(), ::getpid(), counter++);
}

void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& target, Replace replace) {
  sync_path(temporary, O_RDONLY);
  rename_and_sync(temporary, target, replace);
}

void remove_stale_temporaries(const std::filesystem::path& target) {
  const std::string prefix = "." + target.filename().string() + ".";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_of(target), error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(".part")) continue;
    // ".clip.mp4.<process>-<n>.part"
    const size_t dash = name.rfind('-'), dot = name.rfind('.', dash);
    if (dash == std::string::npos || dot == std::string::npos) continue;
    const std::string digits = name.substr(dot + 1, dash - dot - 1);
    const bool is_number = !digits.empty() && digits.size() < 10 &&
                           std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!is_number || ::kill(std::stoi(digits), 0) == 0 || errno != ESRCH) continue;
    std::filesystem::remove(entry.path(), error);
  }
}

void make_folders(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError(fmt::format("{}: {}", folder.string(), error.message()));
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
