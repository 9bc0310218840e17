// Safetensors files: reading (memory-mapped, hostile files survived) and writing (temporary name, then renamed).
//
// Format    8-byte little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, data. F32, F16, BF16
//           are tensors to us, I8..I64, U8 and BOOL too (goldens and masks); any other dtype is refused by name.
// Errors    WeightError naming file and tensor: header beyond the file or over 100 MB, offsets out of range,
//           overlapping, with holes or not matching shape x dtype, overflow, duplicate names, wrong types, missing
//           shards.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/output_file.h"
#include "weights/tensor_source.h"

namespace strobe::weights {

// One file, mapped read-only.
std::shared_ptr<const TensorSource> open_safetensors(const std::filesystem::path& path);

// A sharded checkpoint through its `*.index.json`: every shard must exist and hold the tensors that the index gives it.
std::shared_ptr<const TensorSource> open_safetensors_index(const std::filesystem::path& index_path);

// The weights of one component folder: `<stem>.safetensors`, `<stem>.safetensors.index.json`, or a variant of either
// (`<stem>.fp16.safetensors`; asked for by name only when it is the only one), for the stems `diffusion_pytorch_model`
// and `model`; also accepts a path to a file (.safetensors, .index.json, .pth). WeightError lists what was looked for.
std::shared_ptr<const TensorSource> open_weights(const std::filesystem::path& folder_or_file);

// A file written tensor by tensor: the header is made of the list first, so that no more than a part of one tensor need be
// in memory.
//
// Contract  `tensors` in the order in which they are appended and stored. `append` takes the next elements of the current
//           tensor, in its dtype, any number of them at a time; `skip` leaves the rest of it zero, as a hole where the
//           file system has them. `publish` gives the file its name; without it nothing is left.
// Errors    WeightError for names and dtypes that cannot be stored, ShapeError for elements that do not fit, IoError.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorInfo> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  void append(const at::Tensor& values);
  void skip();
  void publish();

 private:
  const TensorInfo& current() const;
  void advance(uint64_t bytes);

  OutputFile file_;
  std::vector<TensorInfo> tensors_;
  size_t index_ = 0;
  uint64_t left_bytes_ = 0;  // of the current tensor
};

// Bytes of the tensor's elements. WeightError for a shape that overflows.
uint64_t stored_bytes(const TensorInfo& tensor);

// Writes contiguous CPU copies of the tensors in name order, fsynced, under a temporary name, then renames.
void save_safetensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace strobe::weights
