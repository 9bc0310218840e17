// A short name for the content of weights files, that changes when they do.
//
// Method   SHA-256 over names, sizes and bytes: of a file up to 16 MiB all of it, of a larger one the first MiB, the last
//          64 KiB and 4 KiB out of every 4 MiB, so that 28 GB take a second. A training run changes every part of a
//          tensor and is seen; a change of single numbers inside a large file may not be. Paths and times do not count:
//          a copy has the same fingerprint.
#pragma once

#include <filesystem>
#include <string>

namespace strobe::pipelines {

// A file, or a folder's weights, configurations and tokenizer, subfolders included. IoError for what cannot be read.
std::string fingerprint(const std::filesystem::path& file_or_folder);

}  // namespace strobe::pipelines
