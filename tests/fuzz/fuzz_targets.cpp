#include "tests/fuzz/fuzz_targets.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "weights/dtypes.h"
#include "weights/json.h"
#include "weights/safetensors_header.h"
#include "weights/torch_archive_layout.h"

namespace strobe::fuzz {
namespace {

// Not an exception: libFuzzer keeps the input only of a process that dies.
void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken contract: %s\n", what);
  std::abort();
}

}  // namespace

void drive_json(std::string_view bytes) {
  std::string first;
  try {
    first = weights::to_json(weights::parse_json(bytes, "fuzz.json"));
  } catch (const ConfigError&) {
    return;
  }
  require(weights::to_json(weights::parse_json(first, "fuzz.json")) == first, "JSON changed on its way out and in");
}

void drive_safetensors(std::string_view bytes) {
  if (bytes.size() > 8) drive_json(bytes.substr(8));
  weights::SafetensorsHeader header;
  try {
    header = weights::parse_safetensors_header(bytes, bytes.size(), "fuzz.safetensors");
  } catch (const WeightError&) {
    return;
  }
  uint64_t total = 0;
  const weights::SafetensorsEntry* previous = nullptr;
  for (const weights::SafetensorsEntry& entry : header.tensors) {
    require(!previous || previous->name < entry.name, "names sorted and unique");
    require(entry.begin >= 8 && entry.begin <= entry.end && entry.end <= bytes.size(), "data inside the file");
    const uint64_t element_bytes = weights::find_dtype(entry.dtype)->bytes;
    const auto numel = weights::checked_numel(entry.shape, element_bytes);
    require(numel && static_cast<uint64_t>(*numel) * element_bytes == entry.end - entry.begin, "bytes of the shape");
    total += entry.end - entry.begin;
    previous = &entry;
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  require(total == bytes.size() - 8 - length, "tensors cover the data");
}

void drive_torch_archive(std::string_view bytes) {
  std::vector<weights::ArchiveTensor> tensors;
  try {
    tensors = weights::parse_torch_archive(bytes, "fuzz.pth");
  } catch (const WeightError&) {
    return;
  }
  const weights::ArchiveTensor* previous = nullptr;
  for (const weights::ArchiveTensor& tensor : tensors) {
    require(!previous || previous->name < tensor.name, "names sorted and unique");
    const uint64_t element_bytes = weights::find_dtype(tensor.dtype)->bytes;
    require(tensor.shape.size() == tensor.strides.size(), "a stride for every axis");
    uint64_t last = 0;
    bool is_empty = false;
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      is_empty |= tensor.shape[i] == 0;
      if (!is_empty) last += static_cast<uint64_t>((tensor.shape[i] - 1) * tensor.strides[i]);
    }
    require(is_empty || tensor.begin + (last + 1) * element_bytes <= bytes.size(), "elements inside the file");
    previous = &tensor;
  }
}

}  // namespace strobe::fuzz
