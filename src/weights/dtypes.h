// The element types that weights files may hold, under the names of each format.
//
// Header-only and without LibTorch's library, so that the fuzzers link in a second.
#pragma once

#include <c10/core/ScalarType.h>

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

namespace strobe::weights {

static_assert(std::endian::native == std::endian::little, "weights files are little-endian and are mapped as they are");

struct Dtype {
  std::string_view safetensors_name;
  std::string_view storage_class;  // in module `torch` of a pickle
  c10::ScalarType type;
  uint64_t bytes;
};

inline constexpr std::array<Dtype, 9> kDtypes{{
    {"F32", "FloatStorage", c10::ScalarType::Float, 4},
    {"F16", "HalfStorage", c10::ScalarType::Half, 2},
    {"BF16", "BFloat16Storage", c10::ScalarType::BFloat16, 2},
    {"I8", "CharStorage", c10::ScalarType::Char, 1},
    {"I16", "ShortStorage", c10::ScalarType::Short, 2},
    {"I32", "IntStorage", c10::ScalarType::Int, 4},
    {"I64", "LongStorage", c10::ScalarType::Long, 8},
    {"U8", "ByteStorage", c10::ScalarType::Byte, 1},
    {"BOOL", "BoolStorage", c10::ScalarType::Bool, 1},
}};

inline constexpr std::string_view kDtypeNames = "F32, F16, BF16, I8, I16, I32, I64, U8, BOOL";

// More axes than any tensor has; bounds what a hostile file can make us allocate.
inline constexpr size_t kMaxAxes = 64;

inline const Dtype* find_dtype(c10::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == type) return &dtype;
  }
  return nullptr;
}

// Number of elements; nullopt where LibTorch's own arithmetic on the shape would overflow, which for an empty tensor
// includes its other axes (they make its strides).
inline std::optional<int64_t> checked_numel(const std::vector<int64_t>& shape, uint64_t element_bytes) {
  int64_t product = 1;
  bool is_empty = false;
  for (int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) is_empty = true;
    if (size > 0 && __builtin_mul_overflow(product, size, &product)) return std::nullopt;
  }
  if (product > std::numeric_limits<int64_t>::max() / static_cast<int64_t>(element_bytes)) return std::nullopt;
  return is_empty ? 0 : product;
}

}  // namespace strobe::weights
