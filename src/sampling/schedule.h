// Noise schedules: the sigmas and timesteps that a sampler walks.
#pragma once

#include <string>
#include <vector>

namespace strobe::sampling {

// S + 1 sigmas from high to low, ending in 0, and the S timesteps that the model is asked at.
struct Schedule {
  std::vector<float> sigmas;
  std::vector<float> timesteps;
  int steps() const { return static_cast<int>(timesteps.size()); }
};

// How sigmas are spaced.
enum class FlowSpacing {
  kUniPc,      // diffusers >= 0.37: linspace(1, 0.001), shifted once, integer timesteps (wan.md 7.1)
  kUniPcOld,   // diffusers <= 0.36 and the original repositories
  kEuler,      // FlowMatchEulerDiscreteScheduler with its double shift, real timesteps (wan.md 7.3)
  kDistilled,  // linspace(1, 0), shifted once: few-step distilled checkpoints
};

struct FlowScheduleOptions {
  int steps = 50;
  double shift = 3.0;
  FlowSpacing spacing = FlowSpacing::kUniPc;
  int train_timesteps = 1000;
};

// The noise level at u in [0, 1] under a flow shift (arXiv 2403.03206): more of the steps at high noise.
double shifted_sigma(double u, double shift);

// ConfigError for steps < 1 or shift <= 0.
Schedule make_flow_schedule(const FlowScheduleOptions& options);

}  // namespace strobe::sampling
