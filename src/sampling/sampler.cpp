#include "sampling/sampler.h"

#include "core/error.h"
#include "core/nearest.h"
#include "core/torch.h"

namespace strobe::sampling {

std::vector<std::string> sampler_names() {
  return {
#define STROBE_SAMPLER(name) #name,
#include "sampling/samplers.inc"
#undef STROBE_SAMPLER
  };
}

std::unique_ptr<Sampler> make_sampler(const std::string& name) {
#define STROBE_SAMPLER(row) \
  if (name == #row) return make_##row##_sampler();
#include "sampling/samplers.inc"
#undef STROBE_SAMPLER
  throw ConfigError(unknown_name_message("sampler", name, sampler_names()));
}

void check_state(const Sampler& sampler, const Schedule& schedule, const SamplerState& state) {
  STROBE_CHECK(schedule.sigmas.size() == schedule.timesteps.size() + 1, "{}: schedule: {} sigmas for {} timesteps",
               sampler.name(), schedule.sigmas.size(), schedule.timesteps.size());
  STROBE_CHECK(state.x.defined() && state.x.scalar_type() == at::kFloat, "{}: x: expected float32", sampler.name());
  STROBE_CHECK(0 <= state.first_step && state.first_step <= state.step && state.step <= schedule.steps(),
               "{}: state: expected 0 <= first_step <= step <= {}, got {} and {}", sampler.name(), schedule.steps(),
               state.first_step, state.step);
  for (const at::Tensor& tensor : state.history) {
    STROBE_CHECK(tensor.defined() && tensor.sizes() == state.x.sizes() && tensor.scalar_type() == at::kFloat,
                 "{}: history: expected float32 tensors of the shape of x", sampler.name());
  }
}

at::Tensor velocity_at(const Denoise& denoise, const at::Tensor& x, const Schedule& schedule, int step) {
  at::Tensor velocity = denoise(x, schedule.sigmas[step], step);
  STROBE_CHECK(velocity.defined() && velocity.sizes() == x.sizes() && velocity.scalar_type() == at::kFloat,
               "denoise at step {}: expected a float32 tensor of the shape of x", step);
  return velocity;
}

at::Tensor add_noise(const at::Tensor& clean, const at::Tensor& noise, double sigma) {
  STROBE_CHECK(clean.sizes() == noise.sizes(), "add_noise: clean and noise differ in shape");
  return clean.to(at::kFloat).mul(1.0 - sigma).add_(noise.to(at::kFloat).mul(sigma));
}

int first_step_for_strength(int steps, double strength) {
  if (!(strength >= 0.0 && strength <= 1.0)) {
    throw ConfigError(fmt::format("strength: expected a number in [0, 1], got {}", strength));
  }
  return steps - std::min(static_cast<int>(steps * strength), steps);
}

}  // namespace strobe::sampling
