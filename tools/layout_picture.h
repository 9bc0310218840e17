// A layout as text or as a picture.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

namespace strobe::tools {

// `level`: uint8 [M, K]. At most 64 columns, each a share of blocks: ' ' none, '.' some, ':' a third, '*' two thirds,
// '#' all; pooled pairs count 1/factor.
std::string layout_text(const at::Tensor& level);

// A PNG, a pixel a block or larger: black dropped, white kept, shades of blue pooled by 2, 4, 8.
void save_layout_picture(const std::filesystem::path& path, const at::Tensor& level, bool may_overwrite);

}  // namespace strobe::tools
