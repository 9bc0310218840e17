// A complete small Wan model with random weights, in the diffusers layout: the default until a trained one is bundled.
#pragma once

#include <cstdint>
#include <filesystem>

namespace strobe::models {

// Writes into a temporary sibling and renames it to `folder`. The same seed gives the same bytes.
void write_tiny_wan(const std::filesystem::path& folder, uint64_t seed);

}  // namespace strobe::models
