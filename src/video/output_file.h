// Files that appear under their name only when they are complete.
//
// Errors  IoError with the path and the system's text.
#pragma once

#include <filesystem>
#include <string_view>

namespace strobe::video {

// ".clip.mp4.<process>-<n>.part" beside the target; never the same twice in a process.
std::filesystem::path temporary_beside(const std::filesystem::path& target);

// fsyncs `temporary`, renames it to `target` and fsyncs the folder.
void publish_file(const std::filesystem::path& temporary, const std::filesystem::path& target);

// Writes `bytes` under a temporary name and publishes it; nothing stays behind after an error.
void write_file(const std::filesystem::path& target, std::string_view bytes);

// The folder exists and a file can be made in it.
void check_folder_writable(const std::filesystem::path& folder);

// The folder that holds `path`: "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace strobe::video
