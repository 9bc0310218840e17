#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/output_file.h"
#include "core/torch.h"
#include "weights/dtypes.h"
#include "weights/safetensors.h"
#include "weights/safetensors_header.h"

namespace strobe::weights {
namespace {

namespace fs = std::filesystem;

std::string make_header(const fs::path& path, const std::map<std::string, at::Tensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  // Keeps the order of insertion, which is that of the names.
  nlohmann::ordered_json::object_t header;
  if (!metadata.empty()) header.emplace_back(kSafetensorsMetadataKey, metadata);
  uint64_t position = 0;
  for (const auto& [name, tensor] : tensors) {
    if (name == kSafetensorsMetadataKey) throw WeightError(fmt::format("{}: {}: a reserved name", path.string(), name));
    if (!tensor.defined()) throw WeightError(fmt::format("{}: {}: an undefined tensor", path.string(), name));
    const Dtype* dtype = find_dtype(tensor.scalar_type());
    if (!dtype) {
      throw WeightError(fmt::format("{}: {}: dtype {} cannot be stored (expected one of {})", path.string(), name,
                                    at::toString(tensor.scalar_type()), kDtypeNames));
    }
    const uint64_t end = position + static_cast<uint64_t>(tensor.numel()) * dtype->bytes;
    nlohmann::ordered_json entry;
    entry["dtype"] = dtype->safetensors_name;
    entry["shape"] = tensor.sizes().vec();
    entry["data_offsets"] = {position, end};
    header.emplace_back(name, std::move(entry));
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

void save_safetensors(const fs::path& path, const std::map<std::string, at::Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(path, tensors, metadata);
  OutputFile file(path);
  const uint64_t length = header.size();
  file.write(&length, sizeof(length));
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor stored = tensor.detach().to(at::kCPU).contiguous();
    file.write(stored.const_data_ptr(), stored.nbytes());
  }
  file.publish();
}

}  // namespace strobe::weights
