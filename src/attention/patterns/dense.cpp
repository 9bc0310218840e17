// Every query reads every key.
#include "attention/pattern.h"

namespace strobe::attention {
namespace {

class DensePattern final : public AttentionPattern {
 public:
  std::string name() const override { return "dense"; }
  PlanDependence dependence() const override { return {}; }
  AttentionPlan plan(const PatternCall&) const override { return {}; }
  std::optional<NominalDensity> nominal_density(const AttentionSite&, int64_t) const override {
    return NominalDensity{.density = 1};
  }
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
