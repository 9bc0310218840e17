#include "sampling/schedule.h"

#include "core/error.h"
#include "core/torch.h"

namespace strobe::sampling {
namespace {

// The first step of a solver in log signal-to-noise ratio needs sigma < 1.
constexpr double kLargestSigmaGap = 1e-6;

std::vector<double> unipc_sigmas(const FlowScheduleOptions& options) {
  const double last = 1.0 / options.train_timesteps;
  const double stride = (last - 1.0) / options.steps;
  std::vector<double> sigmas;
  sigmas.reserve(static_cast<size_t>(options.steps));
  for (int i = 0; i < options.steps; ++i) sigmas.push_back(shifted_sigma(i * stride + 1.0, options.shift));
  if (std::abs(sigmas.front() - 1.0) < kLargestSigmaGap) sigmas.front() -= kLargestSigmaGap;
  return sigmas;
}

std::vector<double> old_unipc_sigmas(const FlowScheduleOptions& options) {
  const double last = 1.0 / options.train_timesteps;
  const double stride = (last - 1.0) / options.steps;
  std::vector<double> sigmas;
  sigmas.reserve(static_cast<size_t>(options.steps));
  for (int i = 0; i < options.steps; ++i) {
    const double alpha = i == 0 ? last : (options.steps - i) * stride + 1.0;
    sigmas.push_back(shifted_sigma(1.0 - alpha, options.shift));
  }
  return sigmas;
}

std::vector<double> euler_sigmas(const FlowScheduleOptions& options) {
  // float32: the scheduler that defines this spacing keeps its lowest sigma in a float32 tensor.
  const auto lowest = static_cast<float>(shifted_sigma(1.0 / options.train_timesteps, options.shift));
  std::vector<double> sigmas;
  sigmas.reserve(static_cast<size_t>(options.steps));
  for (int i = 0; i < options.steps; ++i) {
    const double part = options.steps > 1 ? static_cast<double>(i) / (options.steps - 1) : 0.0;
    sigmas.push_back(shifted_sigma(1.0 + part * (lowest - 1.0), options.shift));
  }
  return sigmas;
}

std::vector<double> distilled_sigmas(const FlowScheduleOptions& options) {
  std::vector<double> sigmas;
  sigmas.reserve(static_cast<size_t>(options.steps));
  for (int i = 0; i < options.steps; ++i) {
    sigmas.push_back(shifted_sigma(1.0 - static_cast<double>(i) / options.steps, options.shift));
  }
  return sigmas;
}

std::vector<double> sigmas_of(const FlowScheduleOptions& options) {
  switch (options.spacing) {
    case FlowSpacing::kUniPc:
      return unipc_sigmas(options);
    case FlowSpacing::kUniPcOld:
      return old_unipc_sigmas(options);
    case FlowSpacing::kEuler:
      return euler_sigmas(options);
    case FlowSpacing::kDistilled:
      return distilled_sigmas(options);
  }
  throw ConfigError("flow schedule: unknown spacing");
}

}  // namespace

double shifted_sigma(double u, double shift) { return shift * u / (1.0 + (shift - 1.0) * u); }

Schedule make_flow_schedule(const FlowScheduleOptions& options) {
  if (options.steps < 1) throw ConfigError(fmt::format("steps: expected at least 1, got {}", options.steps));
  if (!(options.shift > 0) || !std::isfinite(options.shift)) {
    throw ConfigError(fmt::format("flow_shift: expected a number above 0, got {}", options.shift));
  }
  if (options.train_timesteps < 1) {
    throw ConfigError(fmt::format("train_timesteps: expected at least 1, got {}", options.train_timesteps));
  }
  const bool is_integer = options.spacing == FlowSpacing::kUniPc || options.spacing == FlowSpacing::kUniPcOld;
  Schedule schedule;
  for (double sigma : sigmas_of(options)) {
    const auto rounded = static_cast<float>(sigma);
    schedule.sigmas.push_back(rounded);
    // Integer timesteps come from the float64 sigma, real ones from the float32 one.
    schedule.timesteps.push_back(is_integer ? static_cast<float>(std::trunc(sigma * options.train_timesteps))
                                            : rounded * static_cast<float>(options.train_timesteps));
  }
  schedule.sigmas.push_back(0.0F);
  return schedule;
}

}  // namespace strobe::sampling
