#include "attention/pattern.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/nearest.h"

namespace strobe::attention {

#define STROBE_PATTERN(name) PatternInfo name##_pattern_info();
#include "attention/patterns/patterns.inc"
#undef STROBE_PATTERN

int64_t PatternState::bytes() const {
  int64_t bytes = layout ? layout->bytes() : 0;
  for (const auto& [name, tensor] : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

void refuse_empty_rows(const std::string& method, const BlockLayout& layout) {
  try {
    layout.validate();
  } catch (const ShapeError& error) {
    throw ConfigError(fmt::format("{}: {}; such an output would be 0, so the layout is refused", method, error.what()));
  }
}

at::Tensor key_for_each_head(const at::Tensor& k, int64_t query_heads) {
  return k.size(1) == query_heads ? k : k.repeat_interleave(query_heads / k.size(1), 1);
}

at::Tensor in_order(const at::Tensor& tensor, const std::shared_ptr<const TokenOrder>& order) {
  return order ? tensor.index_select(2, at::tensor(order->raster(), at::kInt).to(tensor.device())) : tensor;
}

const std::vector<PatternInfo>& pattern_infos() {
  static const std::vector<PatternInfo> infos = {
#define STROBE_PATTERN(name) name##_pattern_info(),
#include "attention/patterns/patterns.inc"
#undef STROBE_PATTERN
  };
  return infos;
}

std::vector<std::string> pattern_names() {
  std::vector<std::string> names;
  for (const PatternInfo& info : pattern_infos()) names.push_back(info.name);
  return names;
}

const PatternInfo& pattern_info(const std::string& name) {
  for (const PatternInfo& info : pattern_infos()) {
    if (info.name == name) return info;
  }
  throw ConfigError(unknown_name_message("attention method", name, pattern_names()));
}

}  // namespace strobe::attention
