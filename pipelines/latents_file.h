// Latents on disk: safetensors, key `latents` [C, F, H, W] float32 in the DiT's normalised space (a leading batch of 1
// is read too); the header's metadata says of what.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace strobe::pipelines {

// [1, C, F, H, W] float32. WeightError if the key or the number of axes is wrong, or values are not finite.
at::Tensor load_latents(const std::filesystem::path& path);

// As above; WeightError unless the shape is `expected` ([1, C, F, H, W]).
at::Tensor load_latents(const std::filesystem::path& path, const std::vector<int64_t>& expected);

void save_latents(const std::filesystem::path& path, const at::Tensor& latents,
                  const std::map<std::string, std::string>& metadata);

}  // namespace strobe::pipelines
