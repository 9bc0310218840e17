// A TensorSource over one mapped file: names to checked views.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "weights/mapped_file.h"
#include "weights/tensor_source.h"

namespace strobe::weights {

class MappedSource final : public TensorSource {
 public:
  MappedSource(std::string file_name, std::shared_ptr<const MappedFile> file, std::map<std::string, MappedView> views,
               std::map<std::string, std::string> metadata = {});

  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  at::Tensor read(const std::string& name) const override;
  void prefetch(const std::string& name) const override;
  void release(const std::string& name) const override;
  std::string file_of(const std::string& name) const override;
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }

 private:
  const MappedView& find(const std::string& name) const;

  std::string file_name_;
  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, MappedView> views_;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorInfo> infos_;
};

}  // namespace strobe::weights
