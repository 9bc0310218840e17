#include "weights/safetensors.h"

#include "core/error.h"
#include "core/torch.h"
#include "weights/mapped_source.h"
#include "weights/safetensors_header.h"

namespace strobe::weights {

std::shared_ptr<const TensorSource> open_safetensors(const std::filesystem::path& path) {
  std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  SafetensorsHeader header = parse_safetensors_header(file->bytes(), file->bytes().size(), path.string());
  std::map<std::string, MappedView> views;
  for (SafetensorsEntry& entry : header.tensors) {
    std::vector<int64_t> strides = contiguous_strides(entry.shape);
    views.emplace_hint(views.end(), std::move(entry.name),
                       MappedView{entry.dtype, std::move(entry.shape), std::move(strides), entry.begin});
  }
  return std::make_shared<MappedSource>(path.string(), std::move(file), std::move(views), std::move(header.metadata));
}

}  // namespace strobe::weights
