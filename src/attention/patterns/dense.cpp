// Every query reads every key.
#include "attention/pattern.h"
#include "core/nearest.h"

namespace strobe::attention {
namespace {

class DensePattern final : public AttentionPattern {
 public:
  std::string name() const override { return "dense"; }
  AttentionPlan plan(const AttentionSite&, const at::Tensor&, const at::Tensor&) const override { return {}; }
};

}  // namespace

std::unique_ptr<AttentionPattern> make_dense_pattern(const ConfigNode& options) {
  if (options.is_map() && !options.as_map().empty()) {
    options.fail(
        unknown_name_message("option of the method 'dense' (it has none)", options.as_map().front().first, {}));
  }
  return std::make_unique<DensePattern>();
}

}  // namespace strobe::attention
