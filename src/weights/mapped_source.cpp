#include "weights/mapped_source.h"

#include "core/error.h"
#include "core/torch.h"

namespace strobe::weights {

MappedSource::MappedSource(std::string file_name, std::shared_ptr<const MappedFile> file,
                           std::map<std::string, MappedView> views, std::map<std::string, std::string> metadata)
    : file_name_(std::move(file_name)),
      file_(std::move(file)),
      views_(std::move(views)),
      metadata_(std::move(metadata)) {
  infos_.reserve(views_.size());
  for (const auto& [name, view] : views_) infos_.push_back({name, view.shape, view.dtype});
}

const MappedView& MappedSource::find(const std::string& name) const {
  auto found = views_.find(name);
  if (found == views_.end()) throw WeightError(fmt::format("{}: {}: no such tensor", file_name_, name));
  return found->second;
}

at::Tensor MappedSource::read(const std::string& name) const {
  return make_tensor(file_, find(name), file_name_ + ": " + name);
}

void MappedSource::prefetch(const std::string& name) const {
  const MappedView& view = find(name);
  file_->prefetch(view.begin, view.bytes());
}

void MappedSource::release(const std::string& name) const {
  const MappedView& view = find(name);
  file_->release(view.begin, view.bytes());
}

std::string MappedSource::file_of(const std::string& name) const {
  find(name);
  return file_name_;
}

}  // namespace strobe::weights
