// The directory of a zip archive whose entries are stored (not compressed): names and where their bytes lie.
//
// Reads    end of central directory, its zip64 form, central and local headers. Checksums are not checked: the bytes
// are tensors that nobody has read yet.
// Errors   WeightError naming file and entry: no zip, compressed or encrypted entries, names given twice, anything that
//          points outside the file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace strobe::weights {

// Entry name -> its bytes, a view of `archive`. Names are views too.
std::map<std::string_view, std::string_view> read_zip_directory(std::string_view archive, const std::string& file);

}  // namespace strobe::weights
