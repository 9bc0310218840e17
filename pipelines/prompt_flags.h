// One line of a .txt prompt file: the prompt, and the flags behind it (prompt_file.h has the rules).
#pragma once

#include <string>
#include <string_view>

#include "config/key_table.h"
#include "pipelines/prompt_file.h"

namespace strobe::pipelines {

struct TextLine {
  std::string_view text;  // without its line end
  std::string place;      // "prompts.txt:3"
};

// Fills text and overrides. ConfigError "prompts.txt:3:12: ..." with the column of the flag, from 1.
void read_text_line(const TextLine& line, const config::KeyTable& keys, PromptLine& out);

}  // namespace strobe::pipelines
