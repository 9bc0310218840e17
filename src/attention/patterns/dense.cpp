// Every query reads every key.
#include "attention/pattern.h"

namespace strobe::attention {
namespace {

class DensePattern final : public AttentionPattern {
 public:
  std::string name() const override { return "dense"; }
  PlanDependence dependence() const override { return {}; }
  AttentionPlan plan(const PatternCall&) const override { return {}; }
};

}  // namespace

PatternInfo dense_pattern_info() {
  return {.name = "dense",
          .sentence = "every query reads every key",
          .source = "",
          .presets = {},
          .make = [](OptionReader&) -> std::unique_ptr<AttentionPattern> { return std::make_unique<DensePattern>(); }};
}

}  // namespace strobe::attention
