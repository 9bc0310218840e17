// Classifier-free guidance: uncond + scale * (cond - uncond).
//
// Source    "Classifier-Free Diffusion Guidance", arXiv:2207.12598.
// Branches  {cond, uncond}; {cond} alone if the first stage's scale is at most 1, whatever the other stages' scales say
//           (wan.md 7.4).
#include "core/error.h"
#include "core/torch.h"
#include "sampling/guider.h"

namespace strobe::sampling {
namespace {

class CfgGuider final : public Guider {
 public:
  explicit CfgGuider(const GuiderOptions& options) : scales_(options.scale_per_stage) {
    if (scales_.empty()) throw ConfigError("guidance cfg: scale: expected at least one number");
    for (double scale : scales_) {
      if (!std::isfinite(scale)) throw ConfigError(fmt::format("guidance cfg: scale: not a finite number: {}", scale));
    }
  }

  std::string name() const override { return "cfg"; }

  std::vector<Branch> branches(const GuidanceStep&) const override {
    if (scales_.front() <= 1.0) return {Branch::kCond};
    return {Branch::kCond, Branch::kUncond};
  }

  at::Tensor combine(const GuidanceStep& step, const std::vector<at::Tensor>& predictions) const override {
    const size_t expected = branches(step).size();
    STROBE_CHECK(predictions.size() == expected, "cfg: expected {} predictions, got {}", expected, predictions.size());
    const at::Tensor cond = predictions[0].to(at::kFloat);
    if (expected == 1) return cond;
    const at::Tensor uncond = predictions[1].to(at::kFloat);
    STROBE_CHECK(cond.sizes() == uncond.sizes(), "cfg: cond and uncond differ in shape");
    const size_t stage = std::min(static_cast<size_t>(std::max(step.stage, 0)), scales_.size() - 1);
    return (cond - uncond).mul_(scales_[stage]).add_(uncond);
  }

 private:
  std::vector<double> scales_;
};

}  // namespace

std::unique_ptr<Guider> make_cfg_guider(const GuiderOptions& options) { return std::make_unique<CfgGuider>(options); }

}  // namespace strobe::sampling
