// Folders and clips for the tests of video files.
#pragma once

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "video/video_reader.h"
#include "video/video_writer.h"

namespace strobe::video {

// An empty folder that goes with the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = testing::TempDir() + "strobe_video_XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  size_t num_entries() const {
    const std::filesystem::directory_iterator entries(path_);
    return static_cast<size_t>(std::distance(begin(entries), end(entries)));
  }

 private:
  std::filesystem::path path_;
};

// Smooth moving colours, every channel from 0 to 255.
at::Tensor moving_frames(int64_t frames, int64_t height, int64_t width);

// Values without any pattern.
at::Tensor noisy_frames(int64_t frames, int64_t height, int64_t width);

inline VideoOptions options_for(const at::Tensor& frames) {
  return {.height = frames.size(1), .width = frames.size(2), .threads = 2};
}

inline void write_clip(const std::filesystem::path& path, const at::Tensor& frames, const VideoOptions& options) {
  const auto writer = open_video_writer(path, options);
  writer->write(frames);
  writer->close();
}

// Files larger than this fail as they would on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit = {bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int) = nullptr;
};

// The message of the error of type E that `action` throws; anything else is a failure.
template <class E, class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another error: " << error.what();
    return "";
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace strobe::video
