// Files, and folders, that appear under their name only when they are complete.
//
// Contract  Everything is written under a temporary name beside the target, fsynced, and renamed to the target; then the
//           folder is fsynced too. What is not published is removed, also where the target must not be replaced and has
//           appeared meanwhile: that is decided by the kernel in one step with the renaming, wherever it can.
// Errors    IoError with the path, the call and the system's text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace strobe {

// Whether publishing may replace a target that is there already.
enum class Replace { kNever, kAllowed };

// A file in the making.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& target);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t bytes);
  // Zeros that take no space on file systems with holes.
  void skip(uint64_t bytes);
  // Afterwards the target is there, whole.
  void publish(Replace replace = Replace::kAllowed);

 private:
  std::filesystem::path target_, temporary_;
  int descriptor_ = -1;
  bool is_published_ = false;
};

// A folder in the making; gone with all that is in it unless it is published. The files in it see to themselves.
class OutputFolder {
 public:
  // ConfigError for a target that exists and is not an empty folder.
  explicit OutputFolder(const std::filesystem::path& target);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::filesystem::path& path() const { return temporary_; }
  void publish();

 private:
  std::filesystem::path target_, temporary_;
};

// An OutputFile of `bytes`.
void write_file(const std::filesystem::path& target, std::string_view bytes, Replace replace = Replace::kAllowed);

// ".clip.mp4.<process>-<n>.part" beside the target; never the same twice in a process. For files that a library writes
// by name, together with publish_file.
std::filesystem::path temporary_beside(const std::filesystem::path& target);
void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& target,
                  Replace replace = Replace::kAllowed);

// All of `bytes`, however many calls it takes. `named` is for the message.
void write_all(int descriptor, const void* data, size_t bytes, const std::filesystem::path& named);

// Removes the temporary files beside the target that a process which is gone began for it, or for files named after it.
void remove_stale_temporaries(const std::filesystem::path& target);

// With all above it. IoError with the path and the system's text.
void make_folders(const std::filesystem::path& folder);

// Proves that a file can be made in the folder, by making one and removing it: permission bits say nothing of read-only
// mounts, and nothing at all to root.
void check_folder_writable(const std::filesystem::path& folder);

// The folder that holds `path`: "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace strobe
