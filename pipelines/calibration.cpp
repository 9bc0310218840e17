#include "pipelines/calibration.h"

#include <ctime>

#include "core/torch.h"
// After the precompiled header.
#include "attention/engine.h"
#include "core/timer.h"

namespace strobe::pipelines {
namespace {

constexpr double kSecondsEach = 0.012;
constexpr int kMaxRepeats = 5;
// Of the time that passed to the time that a thread had. Above it others have the cores, and what all threads do would
// be a measure of the scheduler's time slices.
constexpr double kBusyRatio = 1.5;
// Of the work that grows with the threads: memory stays small.
constexpr int64_t kMaxShares = 32;

enum class Clock { kWall, kThread };

double seconds_of(Clock clock) {
  timespec time{};
  clock_gettime(clock == Clock::kWall ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// `call` returns a tensor of its result: reading one element waits for the device.
double measure(Clock clock, double flops, const std::function<at::Tensor()>& call) {
  double best = std::numeric_limits<double>::infinity(), sum = 0;
  for (int i = 0; i < kMaxRepeats && sum < kSecondsEach; ++i) {
    const double begin = seconds_of(clock);
    call().flatten()[0].item<float>();
    const double seconds = seconds_of(clock) - begin;
    best = std::min(best, seconds);
    sum += seconds;
  }
  return flops / std::max(best, 1e-9);
}

// `shares`: how many times the work that keeps one thread busy.
Rates measure_once(const Device& device, Clock clock, int64_t shares) {
  const at::TensorOptions options = at::TensorOptions().dtype(device.dtype).device(device.device);
  Rates rates;

  constexpr int64_t kWidth = 1536;
  const int64_t tokens = 128 * shares;
  const at::Tensor x = at::full({tokens, kWidth}, 0.5, options), w = at::full({kWidth, kWidth}, 0.01, options);
  rates.linear = measure(clock, 2.0 * static_cast<double>(tokens * kWidth * kWidth), [&] { return at::linear(x, w); });

  constexpr int64_t kKeys = 256, kHeadWidth = 128;
  const int64_t heads = 2 * shares;
  attention::AttentionEngine engine;
  const attention::AttentionSite site{.branches = {Branch::kCond}, .grid = {.frames = 1, .rows = 1, .cols = kKeys}};
  const at::Tensor q = at::full({1, heads, kKeys, kHeadWidth}, 0.1, options);
  rates.attention = measure(clock, 4.0 * static_cast<double>(heads * kKeys * kKeys * kHeadWidth),
                            [&] { return engine(site, {.q = q, .k = q, .v = q, .key_bias = {}}); });

  // LibTorch gives a convolution to oneDNN, as the VAE does, where channels x frames x rows are above 20480; below it
  // takes another one of half the speed.
  constexpr int64_t kChannels = 96, kRows = 36, kCols = 8, kTaps = 27;
  const int64_t frames = 4 * shares;
  const at::TensorOptions vae = options.dtype(at::kFloat);
  const auto packed = at::MemoryFormat::ChannelsLast3d;
  const at::Tensor input = at::full({1, kChannels, frames + 2, kRows, kCols}, 0.1, vae).contiguous(packed);
  const at::Tensor kernel = at::full({kChannels, kChannels, 3, 3, 3}, 0.01, vae).contiguous(packed);
  const auto flops = 2.0 * static_cast<double>(frames * kRows * kCols * kChannels * kChannels * kTaps);
  rates.convolution = measure(clock, flops, [&] {
    return at::conv3d(input, kernel, {}, at::IntArrayRef{1, 1, 1}, at::IntArrayRef{0, 1, 1});
  });
  return rates;
}

Rates best_of(const Rates& a, const Rates& b) {
  return {.linear = std::max(a.linear, b.linear),
          .attention = std::max(a.attention, b.attention),
          .convolution = std::max(a.convolution, b.convolution)};
}

}  // namespace

Rates measure_rates(const Device& device) {
  const at::NoGradGuard no_grad;
  const Timer timer;
  Rates rates;
  if (device.device.is_cpu()) {
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const double begin = seconds_of(Clock::kThread);
    rates = measure_once(device, Clock::kThread, 1);
    const double had = seconds_of(Clock::kThread) - begin;
    at::set_num_threads(threads);
    if (const bool is_busy = timer.seconds() > kBusyRatio * had; threads > 1 && !is_busy) {
      rates = best_of(rates, measure_once(device, Clock::kWall, std::min<int64_t>(threads, kMaxShares)));
    }
  } else {
    rates = measure_once(device, Clock::kWall, kMaxShares);
  }
  rates.seconds = timer.seconds();
  return rates;
}

}  // namespace strobe::pipelines
