// Repairs text whose UTF-8 bytes were read as a single-byte code page ("cafÃ©"), and stray C1 controls.
//
// Source   the rules of ftfy 6 (`fix_encoding`), expressed anew: text is touched only if it holds a combination of
//          characters that hardly occurs in text. Then the first of ten code pages whose bytes are UTF-8 wins; failing
//          that, only the runs that look like UTF-8 bytes are repaired.
#pragma once

#include <string>

namespace strobe::models::text {

// Repeats single repairs until nothing changes.
std::u32string repair_encoding(std::u32string text);

// U+0080..U+009F as the Windows-1252 characters that were meant.
std::u32string replace_c1_controls(std::u32string text);

}  // namespace strobe::models::text
