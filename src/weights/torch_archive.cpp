#include "weights/torch_archive.h"

#include "core/torch.h"
#include "weights/mapped_source.h"
#include "weights/torch_archive_layout.h"

namespace strobe::weights {

std::shared_ptr<const TensorSource> open_torch_archive(const std::filesystem::path& path) {
  std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  std::map<std::string, MappedView> views;
  for (ArchiveTensor& tensor : parse_torch_archive(file->bytes(), path.string())) {
    views.emplace_hint(views.end(), std::move(tensor.name),
                       MappedView{tensor.dtype, std::move(tensor.shape), std::move(tensor.strides), tensor.begin});
  }
  return std::make_shared<MappedSource>(path.string(), std::move(file), std::move(views));
}

}  // namespace strobe::weights
