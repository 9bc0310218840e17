#include "weights/weight_store.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/torch.h"
#include "weights/tensor_source.h"

namespace strobe::weights {
namespace {

constexpr size_t kNamesShown = 12;

class MemorySource final : public TensorSource {
 public:
  MemorySource(std::map<std::string, at::Tensor> tensors, std::map<std::string, std::string> metadata)
      : tensors_(std::move(tensors)), metadata_(std::move(metadata)) {
    for (auto& [name, tensor] : tensors_) {
      tensor = tensor.contiguous();
      infos_.push_back({name, tensor.sizes().vec(), tensor.scalar_type()});
    }
  }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  at::Tensor read(const std::string& name) const override {
    auto found = tensors_.find(name);
    if (found == tensors_.end()) throw WeightError(fmt::format("memory: {}: no such tensor", name));
    return found->second;
  }
  std::string file_of(const std::string&) const override { return "memory"; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }

 private:
  std::map<std::string, at::Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorInfo> infos_;
};

void append_list(std::string& message, std::string_view title, const std::vector<std::string>& lines) {
  if (lines.empty()) return;
  message += fmt::format("\n  {} {}:", lines.size(), title);
  for (size_t i = 0; i < std::min(lines.size(), kNamesShown); ++i) message += "\n    " + lines[i];
  if (lines.size() > kNamesShown) message += fmt::format("\n    ... and {} more", lines.size() - kNamesShown);
}

}  // namespace

int64_t TensorSpec::numel() const {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

int64_t count_parameters(const std::vector<TensorSpec>& specs) {
  int64_t count = 0;
  for (const TensorSpec& spec : specs) count += spec.numel();
  return count;
}

std::shared_ptr<const TensorSource> make_memory_source(std::map<std::string, at::Tensor> tensors,
                                                       std::map<std::string, std::string> metadata) {
  return std::make_shared<MemorySource>(std::move(tensors), std::move(metadata));
}

WeightStore WeightStore::bind(std::shared_ptr<const TensorSource> source, const std::vector<TensorSpec>& expected,
                              const std::string& what, const Rename& rename) {
  WeightStore store;
  store.source_ = std::move(source);
  store.specs_ = expected;
  store.what_ = what;

  std::unordered_map<std::string, const TensorSpec*> wanted;
  for (const TensorSpec& spec : expected) wanted.emplace(spec.name, &spec);

  std::vector<std::string> unexpected, wrong, doubled, quantised;
  std::string a_file;
  for (const TensorInfo& info : store.source_->tensors()) {
    a_file = store.source_->file_of(info.name);
    std::optional<std::string> name = rename ? rename(info.name) : std::optional<std::string>(info.name);
    if (!name) continue;
    auto spec = wanted.find(*name);
    if (spec == wanted.end()) {
      unexpected.push_back(fmt::format("{} [{}] ({})", info.name, fmt::join(info.shape, ", "), a_file));
      continue;
    }
    if (!store.file_names_.emplace(*name, info.name).second) {
      doubled.push_back(fmt::format("{} and {} are both {}", store.file_names_[*name], info.name, *name));
      continue;
    }
    if (!at::isFloatingType(info.dtype)) {
      quantised.push_back(fmt::format("{}: {} ({})", info.name, at::toString(info.dtype), a_file));
      continue;
    }
    if (spec->second->shape != info.shape) {
      wrong.push_back(fmt::format("{}: expected [{}], found [{}] {} ({})", info.name,
                                  fmt::join(spec->second->shape, ", "), fmt::join(info.shape, ", "),
                                  at::toString(info.dtype), a_file));
    }
  }
  std::vector<std::string> missing;
  for (const TensorSpec& spec : expected) {
    if (!store.file_names_.contains(spec.name)) {
      missing.push_back(fmt::format("{} [{}]", spec.name, fmt::join(spec.shape, ", ")));
    }
  }
  if (!missing.empty() || !unexpected.empty() || !wrong.empty() || !doubled.empty() || !quantised.empty()) {
    std::string message = fmt::format("{}: the weights do not fit the model's configuration ({})", what,
                                      a_file.empty() ? "no tensors at all" : a_file);
    append_list(message, "not F32, F16 or BF16 (quantised weights are not read)", quantised);
    append_list(message, "wrong shape", wrong);
    append_list(message, "missing", missing);
    append_list(message, "unexpected", unexpected);
    append_list(message, "given twice", doubled);
    throw WeightError(message);
  }
  return store;
}

bool WeightStore::contains(const std::string& name) const {
  return file_names_.contains(name) || (patches_ && patches_->created(name));
}

at::Tensor WeightStore::load_stored(const std::string& name) const {
  auto found = file_names_.find(name);
  if (found == file_names_.end()) throw WeightError(fmt::format("{}: {}: no such tensor", what_, name));
  return source_->read(found->second);
}

at::Tensor WeightStore::load(const std::string& name, at::ScalarType dtype, at::Device device) const {
  const std::vector<int64_t>* created = patches_ ? patches_->created(name) : nullptr;
  if (created) return patches_->apply(name, at::zeros(*created, at::kFloat), dtype, device);
  const at::Tensor stored = load_stored(name);
  at::Tensor loaded = patches_ ? patches_->apply(name, stored, dtype, device)
                               : stored.to(at::TensorOptions().dtype(dtype).device(device));
  if (!loaded.is_same(stored)) source_->release(file_names_.at(name));
  return loaded;
}

void WeightStore::prefetch(std::string_view prefix) const {
  for (const TensorSpec& spec : specs_) {
    if (spec.name.starts_with(prefix)) source_->prefetch(file_names_.at(spec.name));
  }
}

void WeightStore::release(std::string_view prefix) const {
  for (const TensorSpec& spec : specs_) {
    if (spec.name.starts_with(prefix)) source_->release(file_names_.at(spec.name));
  }
}

std::vector<std::pair<at::ScalarType, int64_t>> WeightStore::bytes_by_dtype() const {
  std::map<at::ScalarType, int64_t> sums;
  if (source_) {
    for (const TensorInfo& info : source_->tensors()) {
      int64_t bytes = static_cast<int64_t>(c10::elementSize(info.dtype));
      for (int64_t size : info.shape) bytes *= size;
      sums[info.dtype] += bytes;
    }
  }
  std::vector<std::pair<at::ScalarType, int64_t>> sorted(sums.begin(), sums.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return sorted;
}

}  // namespace strobe::weights
