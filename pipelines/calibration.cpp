#include "pipelines/calibration.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/timer.h"

namespace strobe::pipelines {
namespace {

constexpr double kSecondsEach = 0.03;
constexpr int kMaxRepeats = 20;

// `call` returns a tensor of its result: reading one element waits for the device.
double measure(double flops, const std::function<at::Tensor()>& call) {
  const auto run = [&] { return call().flatten()[0].item<float>(); };
  const Timer all;
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kMaxRepeats && (i == 0 || all.seconds() < kSecondsEach); ++i) {
    const Timer one;
    run();
    best = std::min(best, one.seconds());
  }
  return flops / std::max(best, 1e-9);
}

}  // namespace

Rates measure_rates(const Device& device) {
  const at::NoGradGuard no_grad;
  const Timer timer;
  const at::TensorOptions options = at::TensorOptions().dtype(device.dtype).device(device.device);
  Rates rates;

  constexpr int64_t kTokens = 256, kWidth = 1536;
  const at::Tensor x = at::full({kTokens, kWidth}, 0.5, options), w = at::full({kWidth, kWidth}, 0.01, options);
  rates.linear = measure(2.0 * kTokens * kWidth * kWidth, [&] { return at::linear(x, w); });

  constexpr int64_t kHeads = 4, kHeadWidth = 128, kKeys = 768;
  const at::Tensor q = at::full({1, kHeads, kKeys, kHeadWidth}, 0.1, options);
  rates.attention =
      measure(4.0 * kHeads * kKeys * kKeys * kHeadWidth, [&] { return at::scaled_dot_product_attention(q, q, q); });

  constexpr int64_t kChannels = 96, kFrames = 4, kRows = 24, kCols = 32, kTaps = 27;
  const at::TensorOptions vae = options.dtype(at::kFloat);
  const auto packed = at::MemoryFormat::ChannelsLast3d;
  const at::Tensor frames = at::full({1, kChannels, kFrames + 2, kRows, kCols}, 0.1, vae).contiguous(packed);
  const at::Tensor kernel = at::full({kChannels, kChannels, 3, 3, 3}, 0.01, vae).contiguous(packed);
  rates.convolution = measure(2.0 * kFrames * kRows * kCols * kChannels * kChannels * kTaps, [&] {
    return at::conv3d(frames, kernel, {}, at::IntArrayRef{1, 1, 1}, at::IntArrayRef{0, 1, 1});
  });
  rates.seconds = timer.seconds();
  return rates;
}

}  // namespace strobe::pipelines
