// HTML character references.
#pragma once

#include <string>
#include <string_view>

namespace strobe::models::text {

// As browsers and Python's html.unescape decode: named references of HTML5 (legacy ones also without a semicolon and as
// a prefix), numeric ones with the Windows-1252 corrections of the standard; what is none stays.
std::u32string unescape_html(std::u32string_view text);

// Only references that surely are some: those ending in a semicolon, and names of letters spelled in capitals
// (&EACUTE;).
std::u32string unescape_certain_html(std::u32string_view text);

}  // namespace strobe::models::text
