// Patterns: which keys a query reads. Listed in patterns/patterns.inc.
//
// A pattern knows the site and the tensors of its call, never the model. It is const and shared between runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "attention/site.h"
#include "core/config_node.h"

namespace strobe::attention {

// What a pattern decided for one call.
struct AttentionPlan {
  bool is_dense = true;
  std::string note;  // why, when the method's own rule made the call dense; goes into the record
};

class AttentionPattern {
 public:
  virtual ~AttentionPattern() = default;
  virtual std::string name() const = 0;
  virtual AttentionPlan plan(const AttentionSite& site, const at::Tensor& q, const at::Tensor& k) const = 0;
};

// `options` is the method's own map (null: defaults). ConfigError for an unknown method or option.
std::unique_ptr<AttentionPattern> make_pattern(const std::string& name, const ConfigNode& options);
std::vector<std::string> pattern_names();

}  // namespace strobe::attention
