// The two kinds of reader behind open_video_reader.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "video/video_reader.h"

namespace strobe::video {

std::unique_ptr<VideoReader> make_file_reader(const std::filesystem::path& path);
std::string read_file_comment(const std::filesystem::path& path);

// A folder, a name with {frame:05}, or a single image.
bool is_image_input(const std::filesystem::path& path);
std::unique_ptr<VideoReader> make_image_reader(const std::filesystem::path& path);

}  // namespace strobe::video
