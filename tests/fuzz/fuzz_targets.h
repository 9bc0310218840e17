// What the fuzzers drive: each takes any bytes, swallows the errors that a hostile file may cause, and aborts when a
// parser accepted something that breaks its contract.
#pragma once

#include <string_view>

namespace strobe::fuzz {

// Parses, prints, parses again: the same text must come out.
void drive_json(std::string_view bytes);

// The bytes as a whole file; its header also goes through the general JSON reader.
void drive_safetensors(std::string_view bytes);

void drive_torch_archive(std::string_view bytes);

}  // namespace strobe::fuzz
