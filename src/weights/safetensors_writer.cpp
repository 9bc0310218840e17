#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/torch.h"
#include "weights/dtypes.h"
#include "weights/safetensors.h"
#include "weights/safetensors_header.h"

namespace strobe::weights {
namespace {

namespace fs = std::filesystem;

std::string make_header(const fs::path& path, const std::vector<TensorInfo>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  // Keeps the order of insertion, which is that of the data.
  nlohmann::ordered_json::object_t header;
  if (!metadata.empty()) header.emplace_back(kSafetensorsMetadataKey, metadata);
  uint64_t position = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.name == kSafetensorsMetadataKey) {
      throw WeightError(fmt::format("{}: {}: a reserved name", path.string(), tensor.name));
    }
    const Dtype* dtype = find_dtype(tensor.dtype);
    if (!dtype) {
      throw WeightError(fmt::format("{}: {}: dtype {} cannot be stored (expected one of {})", path.string(),
                                    tensor.name, at::toString(tensor.dtype), kDtypeNames));
    }
    const uint64_t end = position + stored_bytes(tensor);
    nlohmann::ordered_json entry;
    entry["dtype"] = dtype->safetensors_name;
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {position, end};
    header.emplace_back(tensor.name, std::move(entry));
    position = end;
  }
  std::string text;
  try {
    text = nlohmann::ordered_json(std::move(header)).dump();
  } catch (const nlohmann::json::exception&) {
    throw WeightError(fmt::format("{}: a tensor's name or the metadata is not UTF-8", path.string()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxSafetensorsHeaderBytes) {
    throw WeightError(fmt::format("{}: a header of {} bytes, the limit is {}", path.string(), text.size(),
                                  kMaxSafetensorsHeaderBytes));
  }
  return text;
}

}  // namespace

uint64_t stored_bytes(const TensorInfo& tensor) {
  const uint64_t element = c10::elementSize(tensor.dtype);
  const std::optional<int64_t> count = checked_numel(tensor.shape, element);
  if (!count) throw WeightError(fmt::format("{}: a shape that overflows", tensor.name));
  return static_cast<uint64_t>(*count) * element;
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<TensorInfo> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), tensors_(std::move(tensors)) {
  const std::string header = make_header(path, tensors_, metadata);
  const uint64_t length = header.size();
  file_.write(&length, sizeof(length));
  file_.write(header.data(), header.size());
  if (!tensors_.empty()) left_bytes_ = stored_bytes(tensors_.front());
  advance(0);
}

const TensorInfo& SafetensorsWriter::current() const {
  STROBE_CHECK(index_ < tensors_.size(), "safetensors: all {} tensors are written already", tensors_.size());
  return tensors_[index_];
}

// Past `bytes` of the current tensor, and past empty ones behind it.
void SafetensorsWriter::advance(uint64_t bytes) {
  left_bytes_ -= bytes;
  while (left_bytes_ == 0 && index_ < tensors_.size()) {
    ++index_;
    left_bytes_ = index_ < tensors_.size() ? stored_bytes(tensors_[index_]) : 0;
  }
}

void SafetensorsWriter::append(const at::Tensor& values) {
  if (values.numel() == 0) return;
  const TensorInfo& tensor = current();
  STROBE_CHECK(values.scalar_type() == tensor.dtype && values.nbytes() <= left_bytes_,
               "safetensors: {}: {} bytes of {} appended, {} of {} are left", tensor.name, values.nbytes(),
               at::toString(values.scalar_type()), left_bytes_, at::toString(tensor.dtype));
  const at::Tensor stored = values.detach().to(at::kCPU).contiguous();
  file_.write(stored.const_data_ptr(), stored.nbytes());
  advance(stored.nbytes());
}

void SafetensorsWriter::skip() {
  current();
  file_.skip(left_bytes_);
  advance(left_bytes_);
}

void SafetensorsWriter::publish() {
  STROBE_CHECK(index_ == tensors_.size(), "safetensors: {} is not written yet", tensors_[index_].name);
  file_.publish();
}

void save_safetensors(const fs::path& path, const std::map<std::string, at::Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined()) throw WeightError(fmt::format("{}: {}: an undefined tensor", path.string(), name));
    infos.push_back({name, tensor.sizes().vec(), tensor.scalar_type()});
  }
  SafetensorsWriter writer(path, std::move(infos), metadata);
  for (const auto& [name, tensor] : tensors) writer.append(tensor);
  writer.publish();
}

}  // namespace strobe::weights
