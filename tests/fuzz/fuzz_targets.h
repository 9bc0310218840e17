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

// Parses, prints, parses again: the same tree must come out.
void drive_yaml(std::string_view bytes);

// The first letter names the format: t .txt, l .jsonl, c .csv, y .yaml, j .json. The rest is the file.
void drive_prompt_file(std::string_view bytes);

// A tokenizer.json if the bytes begin with a brace, else a spiece.model; then some texts through the tokenizer.
void drive_tokenizer(std::string_view bytes);

}  // namespace strobe::fuzz
