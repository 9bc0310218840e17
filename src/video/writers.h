// The two kinds of writer behind open_video_writer, and their checks that need no file.
#pragma once

#include <filesystem>
#include <memory>

#include "core/output_file.h"
#include "video/video_writer.h"

namespace strobe::video {

std::unique_ptr<VideoWriter> make_file_writer(const std::filesystem::path& path, const VideoOptions& options);
void check_file_writer(const std::filesystem::path& path, const VideoOptions& options);

// A name ending in '/' or in .png.
bool is_png_output(const std::filesystem::path& path);
std::unique_ptr<VideoWriter> make_png_writer(const std::filesystem::path& path, const VideoOptions& options);
void check_png_writer(const std::filesystem::path& path, const VideoOptions& options);
// A file that the frames of any clip could replace; empty if there is none.
std::filesystem::path existing_png(const std::filesystem::path& path);

inline Replace replace_of(const VideoOptions& options) {
  return options.may_overwrite ? Replace::kAllowed : Replace::kNever;
}

// ShapeError unless `frames` are [n, height, width, 3] uint8 of the options' size; contiguous on the CPU.
at::Tensor checked_frames(const at::Tensor& frames, const VideoOptions& options);

}  // namespace strobe::video
