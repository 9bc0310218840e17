// Samplers: a loop over denoise(x, sigma, step), one file per paper, listed in samplers.inc.
//
// A sampler sees neither text nor model. Its state is a plain value, so that a run can be stored and continued: the
// same state and denoise give the same bits, whether or not the run was cut between two steps.
//
// Contract  No tensor of a state that an observer has seen is written to afterwards.
// Errors    ShapeError for a state that does not fit the schedule or the sampler (step, history, dtype) and for a
//           velocity of another shape or dtype than x.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sampling/schedule.h"

namespace strobe::sampling {

struct SamplerState {
  at::Tensor x;                     // current sample, float32
  int step = 0;                     // next step to run
  int first_step = 0;               // where the run began: > 0 for video-to-video
  std::vector<at::Tensor> history;  // the sampler's own tensors, in its own order; empty at the start
};

// The model's velocity (noise minus clean sample) at `x`, float32, the shape of x.
using Denoise = std::function<at::Tensor(const at::Tensor& x, double sigma, int step)>;
// Called after each step with the state from which the next step starts.
using StepObserver = std::function<void(const SamplerState& state)>;

class Sampler {
 public:
  virtual ~Sampler() = default;
  virtual std::string name() const = 0;
  // Spacing of this sampler's schedule unless the user asks for another.
  virtual FlowSpacing default_spacing() const = 0;
  // Runs from state.step to the end; returns the final sample.
  virtual at::Tensor sample(const Schedule& schedule, SamplerState state, const Denoise& denoise,
                            const StepObserver& observe) const = 0;
};

// ConfigError with the nearest name for an unknown one.
std::unique_ptr<Sampler> make_sampler(const std::string& name);
std::vector<std::string> sampler_names();

// (1 - sigma) * clean + sigma * noise: the start of video-to-video (wan.md 8.5).
at::Tensor add_noise(const at::Tensor& clean, const at::Tensor& noise, double sigma);

// First step of a video-to-video run: steps - min(int(steps * strength), steps). ConfigError for strength
// outside [0, 1].
int first_step_for_strength(int steps, double strength);

// What every sampler checks before its first step.
void check_state(const Sampler& sampler, const Schedule& schedule, const SamplerState& state);

// denoise(x, sigma, step) as float32, checked against x.
at::Tensor velocity_at(const Denoise& denoise, const at::Tensor& x, const Schedule& schedule, int step);

#define STROBE_SAMPLER(name) std::unique_ptr<Sampler> make_##name##_sampler();
#include "sampling/samplers.inc"
#undef STROBE_SAMPLER

}  // namespace strobe::sampling
