// When a text looks as if it had been read with a wrong code page (see mojibake.h).
#pragma once

#include <string_view>

namespace strobe::models::text {

bool looks_like_mojibake(std::u32string_view text);

}  // namespace strobe::models::text
