// UniPC, order 2, B(h) = expm1(-h), predicting the clean sample; closed form of wan.md 7.2.
//
// Source   "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", arXiv:2302.04867.
// Differs  the last predictor step has order 1, as in diffusers with lower_order_final.
// History  {x_previous, clean_1, clean_2}: the corrected sample from which the last predictor step started, and the
//          last two predictions of the clean sample, newest first. Empty at the start, without clean_2 after one step.
// Bits     Coefficients in float64 from the float32 sigmas, tensors in float32.
#include "core/error.h"
#include "core/torch.h"
#include "sampling/sampler.h"

namespace strobe::sampling {
namespace {

// Half the logarithm of the signal-to-noise ratio, twice: +inf for sigma 0 and -inf for sigma 1, which the
// formulas bear.
double lambda_of(double sigma) { return std::log1p(-sigma) - std::log(sigma); }

// Order of the predictor step that left step `step`.
int predictor_order(const Schedule& schedule, const SamplerState& state, int step) {
  return std::min({2, schedule.steps() - step, step - state.first_step + 1});
}

// x_previous, clean_1, clean_2 and the model's new prediction `clean` to the corrected sample of this step.
at::Tensor correct(const Schedule& schedule, const SamplerState& state, const at::Tensor& clean) {
  const int i = state.step;
  const double sigma = schedule.sigmas[i], sigma_1 = schedule.sigmas[i - 1];
  const double lambda_1 = lambda_of(sigma_1), h = lambda_of(sigma) - lambda_1;
  const double e = std::expm1(-h), gain = (1.0 - sigma) * e;
  const at::Tensor &previous = state.history[0], &clean_1 = state.history[1];

  at::Tensor base = previous.mul(sigma / sigma_1).sub_(clean_1.mul(gain));
  if (predictor_order(schedule, state, i - 1) == 1) return base.sub_((clean - clean_1).mul_(gain * 0.5));

  const double r = (lambda_of(schedule.sigmas[i - 2]) - lambda_1) / h;
  const double k = -h, phi = e / k - 1.0;
  const double b1 = phi / e, b2 = (phi / k - 0.5) * 2.0 / e;
  const double c1 = (b1 - b2) / (1.0 - r), c2 = b1 - c1;
  return base.sub_((state.history[2] - clean_1).mul_(gain * c1 / r)).sub_((clean - clean_1).mul_(gain * c2));
}

// The sample at the next sigma, from the corrected `x` and the prediction `clean` made at this one.
at::Tensor predict(const Schedule& schedule, const SamplerState& state, const at::Tensor& x, const at::Tensor& clean) {
  const int i = state.step;
  const double sigma = schedule.sigmas[i], next = schedule.sigmas[i + 1];
  if (next == 0.0) return clean;
  const double lambda = lambda_of(sigma), h = lambda_of(next) - lambda;
  const double gain = (1.0 - next) * std::expm1(-h);

  at::Tensor y = x.mul(next / sigma).sub_(clean.mul(gain));
  if (predictor_order(schedule, state, i) == 1) return y;
  const double r = (lambda_of(schedule.sigmas[i - 1]) - lambda) / h;
  return y.sub_((state.history[1] - clean).mul_(gain * 0.5 / r));
}

class UniPcSampler final : public Sampler {
 public:
  std::string name() const override { return "unipc"; }
  FlowSpacing default_spacing() const override { return FlowSpacing::kUniPc; }

  at::Tensor sample(const Schedule& schedule, SamplerState state, const Denoise& denoise,
                    const StepObserver& observe) const override {
    check_state(*this, schedule, state);
    const int done = state.step - state.first_step;
    const size_t expected = done == 0 ? 0 : done == 1 ? 2 : 3;
    STROBE_CHECK(state.history.size() == expected, "unipc: history: expected {} tensors after {} steps, got {}",
                 expected, done, state.history.size());
    while (state.step < schedule.steps()) {
      const at::Tensor velocity = velocity_at(denoise, state.x, schedule, state.step);
      // From the sample before correction: the model was asked there.
      const at::Tensor clean = state.x - velocity.mul(static_cast<double>(schedule.sigmas[state.step]));
      const at::Tensor x = state.step > state.first_step ? correct(schedule, state, clean) : state.x;
      at::Tensor next = predict(schedule, state, x, clean);
      std::vector<at::Tensor> history = {x, clean};
      if (!state.history.empty()) history.push_back(state.history[1]);
      state.x = std::move(next);
      state.history = std::move(history);
      ++state.step;
      if (observe) observe(state);
    }
    return state.x;
  }
};

}  // namespace

std::unique_ptr<Sampler> make_unipc_sampler() { return std::make_unique<UniPcSampler>(); }

}  // namespace strobe::sampling
