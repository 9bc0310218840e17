// The nearest known name to a mistyped one, for messages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace strobe {

// The candidate with the smallest edit distance if that is at most a third of the length (at least 2), else empty.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

// "unknown <what> 'name'; did you mean 'x'? known: a, b, c"
std::string unknown_name_message(std::string_view what, std::string_view name,
                                 const std::vector<std::string>& candidates);

}  // namespace strobe
