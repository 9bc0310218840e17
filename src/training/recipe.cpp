#include "training/recipe.h"

#include "core/torch.h"

namespace strobe::training {

double rate_at(const RateSchedule& schedule, int64_t step, int64_t seen, int64_t samples) {
  constexpr double kPi = 3.14159265358979323846;
  const double done = std::min(1.0, static_cast<double>(seen) / static_cast<double>(std::max<int64_t>(samples, 1)));
  double rate = 1;
  if (schedule.decay == Decay::kCosine) {
    rate = schedule.final_share + (1 - schedule.final_share) * 0.5 * (1 + std::cos(kPi * done));
  } else if (schedule.decay == Decay::kLinear && done > 1 - schedule.decay_share) {
    rate = 1 - (1 - schedule.final_share) * (done - (1 - schedule.decay_share)) / schedule.decay_share;
  }
  if (step < schedule.warmup_steps) {
    rate *= static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  }
  return rate;
}

}  // namespace strobe::training
