#include "training/losses.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/counter_random.h"
#include "core/noise.h"
#include "sampling/schedule.h"

namespace strobe::training {
namespace {

constexpr double kSquareWeight = 4, kAbsoluteWeight = 0.3, kDifferenceWeight = 0.2;
constexpr double kLeastLogVariance = -20, kLargestLogVariance = 10;
constexpr float kTimesteps = 1000;

enum Stream : uint64_t { kNoise = 16, kSigma };

at::Tensor mean_absolute_difference(const at::Tensor& error, int64_t axis) {
  const int64_t size = error.size(axis);
  return (error.narrow(axis, 1, size - 1) - error.narrow(axis, 0, size - 1)).abs().mean();
}

double value(const at::Tensor& scalar) { return scalar.detach().item<double>(); }

}  // namespace

at::Tensor sample_noise(uint64_t seed, int64_t first, int64_t count, const std::vector<int64_t>& shape) {
  std::vector<at::Tensor> rows;
  for (int64_t i = 0; i < count; ++i) {
    rows.push_back(draw_noise(CounterRandom(seed, static_cast<uint64_t>(first + i), kNoise).bits(), shape));
  }
  return at::stack(rows);
}

at::Tensor sample_sigmas(uint64_t seed, int64_t first, int64_t count, double shift) {
  at::Tensor sigmas = at::empty({count}, at::kFloat);
  auto* const out = sigmas.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    const double u = CounterRandom(seed, static_cast<uint64_t>(first + i), kSigma).uniform();
    out[i] = static_cast<float>(sampling::shifted_sigma(u, shift));
  }
  return sigmas;
}

Loss autoencoder_loss(const models::ClipCodec& codec, const at::Tensor& clips, const at::Tensor& noise,
                      double kl_weight) {
  const models::VaePosterior posterior = codec.encode(clips);
  const at::Tensor log_variance = posterior.log_variance.clamp(kLeastLogVariance, kLargestLogVariance);
  const at::Tensor sample = posterior.mean + (log_variance * 0.5).exp() * noise;
  const at::Tensor error = codec.decode(sample) - clips;
  const at::Tensor square = error.square().mean(), absolute = error.abs().mean();
  const at::Tensor differences = mean_absolute_difference(error, 3) + mean_absolute_difference(error, 4);
  const at::Tensor kl = (posterior.mean.square() + log_variance.exp() - 1 - log_variance).mean() * 0.5;
  return {
      .total = square * kSquareWeight + absolute * kAbsoluteWeight + differences * kDifferenceWeight + kl * kl_weight,
      .terms = {{"mse", value(square)}, {"l1", value(absolute)}, {"kl", value(kl)}}};
}

at::Tensor velocity_loss(const models::DiTModel& model, const VelocityBatch& batch,
                         attention::AttentionFunction& attention, models::BlockRunner& blocks) {
  const int64_t count = batch.latents.size(0);
  const at::Tensor sigma = batch.sigmas.view({count, 1, 1, 1, 1});
  const at::Tensor noisy = batch.latents * (1 - sigma) + batch.noise * sigma;
  models::ModelContext context{.attention = attention, .blocks = blocks};
  context.branches.assign(static_cast<size_t>(count), Branch::kCond);
  const at::Tensor velocity = model.predict(
      {.latents = noisy, .timesteps = batch.sigmas * kTimesteps, .conditioning = {batch.conditioning}}, context);
  return (velocity - (batch.noise - batch.latents)).square().mean();
}

}  // namespace strobe::training
