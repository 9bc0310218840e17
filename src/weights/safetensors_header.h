// The header of a safetensors file, parsed and checked against the file's size, without a file or LibTorch.
//
// Errors    WeightError naming file and tensor, as safetensors.h lists them.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::weights {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr std::string_view kSafetensorsMetadataKey = "__metadata__";

struct SafetensorsEntry {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Float;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes from the start of the file
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  // sorted bytewise by name
  std::map<std::string, std::string> metadata;
};

// `bytes` is the beginning of the file, at least up to the end of its header (the whole file, if that is shorter);
// `file` names it in messages.
SafetensorsHeader parse_safetensors_header(std::string_view bytes, uint64_t file_size, const std::string& file);

}  // namespace strobe::weights
