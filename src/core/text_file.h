// Small files read whole, and text files that people write: checked to be text.
//
// Errors    ConfigError, since a file that a command line names is part of what was asked; it names file, line and column.
//           read_whole_file is for the other files and throws IoError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace strobe {

// The bytes of a file of at most `max_bytes`, as they are. A pipe will do.
std::string read_whole_file(const std::filesystem::path& path, uintmax_t max_bytes);

// The same with a ConfigError.
std::string read_text_file(const std::filesystem::path& path, uintmax_t max_bytes);

// Without the byte order mark that some editors put in front of UTF-8.
std::string_view without_byte_order_mark(std::string_view text);

// Index of the first byte that no UTF-8 text holds; npos for good text. Overlong forms and surrogates are bad.
size_t find_invalid_utf8(std::string_view text);

// Index of the first control character other than tab and line ends; npos for none.
size_t find_control_character(std::string_view text);

// "file:line:column" of the byte at `offset`, the column in bytes from 1.
std::string place_in_text(std::string_view text, const std::string& file, size_t offset);

// ConfigError unless the text is UTF-8 without control characters.
void check_text(std::string_view text, const std::string& file);

// A piece of a foreign text for a message: at most `max_bytes`, no control characters, cut between characters.
std::string excerpt(std::string_view text, size_t max_bytes = 60);

}  // namespace strobe
