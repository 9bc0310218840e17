#include "weights/named_shapes.h"

#include <set>

#include "core/error.h"
#include "core/torch.h"

namespace strobe::weights {

NamedShapes::NamedShapes(const TensorSource& source, const Rename& rename, std::string what)
    : what_(std::move(what)), file_("no tensors at all") {
  for (const TensorInfo& info : source.tensors()) {
    file_ = source.file_of(info.name);
    if (!rename) {
      shapes_[info.name] = info.shape;
    } else if (const std::optional<std::string> name = rename(info.name)) {
      shapes_[*name] = info.shape;
    }
  }
}

bool NamedShapes::contains_prefix(std::string_view prefix) const {
  const auto found = shapes_.lower_bound(prefix);
  return found != shapes_.end() && found->first.starts_with(prefix);
}

const std::vector<int64_t>& NamedShapes::at(const std::string& name, size_t axes) const {
  const auto found = shapes_.find(name);
  if (found == shapes_.end()) throw WeightError(fmt::format("{}: not {}: {} is missing", file_, what_, name));
  const std::vector<int64_t>& shape = found->second;
  if (shape.size() != axes || std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    throw WeightError(fmt::format("{}: not {}: {} should have {} axes, none of them empty", file_, what_, name, axes));
  }
  return shape;
}

int64_t NamedShapes::count_blocks(std::string_view prefix) const {
  std::set<std::string_view> blocks;
  for (auto entry = shapes_.lower_bound(prefix); entry != shapes_.end() && entry->first.starts_with(prefix); ++entry) {
    const std::string_view name = entry->first;
    blocks.insert(name.substr(0, name.find('.', prefix.size())));
  }
  return static_cast<int64_t>(blocks.size());
}

}  // namespace strobe::weights
