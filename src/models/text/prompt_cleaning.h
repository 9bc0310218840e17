// Prompt cleaning: what the reference pipeline does to a prompt before its tokenizer sees it.
//
// Steps    line by line until nothing changes: certain HTML references (unless a '<' was seen), mojibake, C1 controls,
//          Latin ligatures, full- and half-width forms, curly quotes, line breaks, terminal escapes, control
//          characters, NFC; then HTML references twice, and runs of Unicode white space become one space, none at the
//          ends.
// Source   diffusers `prompt_clean`, which calls `ftfy.fix_text` and `html.unescape`.
// Errors   none: bytes that are no UTF-8 become U+FFFD.
#pragma once

#include <string>
#include <string_view>

namespace strobe::models {

std::string clean_prompt(std::string_view prompt);

}  // namespace strobe::models
