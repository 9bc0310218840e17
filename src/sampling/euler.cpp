// Euler steps along the flow: x + (sigma_next - sigma) * velocity.
//
// Source  "Flow Matching for Generative Modeling", arXiv:2210.02747. History: none.
#include "core/error.h"
#include "core/torch.h"
#include "sampling/sampler.h"

namespace strobe::sampling {
namespace {

class EulerSampler final : public Sampler {
 public:
  std::string name() const override { return "euler"; }
  FlowSpacing default_spacing() const override { return FlowSpacing::kEuler; }

  at::Tensor sample(const Schedule& schedule, SamplerState state, const Denoise& denoise,
                    const StepObserver& observe) const override {
    check_state(*this, schedule, state);
    STROBE_CHECK(state.history.empty(), "euler: history: expected none, got {} tensors", state.history.size());
    while (state.step < schedule.steps()) {
      const at::Tensor velocity = velocity_at(denoise, state.x, schedule, state.step);
      const float stride = schedule.sigmas[state.step + 1] - schedule.sigmas[state.step];
      state.x = velocity.mul(stride).add_(state.x);
      ++state.step;
      if (observe) observe(state);
    }
    return state.x;
  }
};

}  // namespace

std::unique_ptr<Sampler> make_euler_sampler() { return std::make_unique<EulerSampler>(); }

}  // namespace strobe::sampling
