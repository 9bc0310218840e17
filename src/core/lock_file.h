// A file that one process at a time holds, for as long as it lives.
//
// Contract  An exclusive flock, never waited for. The kernel lets go of it when the process ends, however it ends; the file
//           may then stay behind, and the next holder takes it over. A holder that ends orderly removes it while still
//           holding it. The file says who holds it: "<process id>\n". A forked child shares its parent's lock.
// Errors    IoError with the path, the call and the system's text: also on file systems that have no locks.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>

namespace strobe {

class LockFile {
 public:
  // Nothing if another holds it; within one process, too.
  static std::optional<LockFile> try_lock(const std::filesystem::path& path);
  // Who holds it, for a message; nothing if the file does not say (yet). True only while it is held.
  static std::optional<pid_t> holder_of(const std::filesystem::path& path);

  LockFile(LockFile&& other) noexcept;
  LockFile& operator=(LockFile&& other) noexcept;
  ~LockFile();

 private:
  LockFile(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::filesystem::path path_;
  int descriptor_ = -1;
};

// ".clip.mp4.lock" beside the target.
std::filesystem::path lock_beside(const std::filesystem::path& target);

}  // namespace strobe
