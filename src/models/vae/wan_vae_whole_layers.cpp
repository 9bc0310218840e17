#include "models/vae/wan_vae_whole_layers.h"

#include "core/torch.h"
// After the precompiled header.
#include <torch/csrc/autograd/custom_function.h>

#include "models/vae/pixel_passes.h"

namespace strobe::models::whole {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kTaps = 3;

bool has_fused_passes(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

// [..., R, W, C] as [N, C, R, W] in channels-last memory, without a copy.
at::Tensor to_images(const at::Tensor& frames) { return frames.flatten(0, -4).permute({0, 3, 1, 2}); }

// The inverse: [F, B, R, W, C], contiguous.
at::Tensor to_frames(const at::Tensor& images, int64_t count) {
  return images.permute({0, 2, 3, 1}).contiguous().unflatten(0, {count, images.size(0) / count});
}

at::Tensor conv_images(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                       int64_t padding) {
  const at::Tensor kernel = weight.contiguous(at::MemoryFormat::ChannelsLast);
  return to_frames(at::conv2d(to_images(frames), kernel, bias, stride, padding), frames.size(0));
}

class FusedNorm : public torch::autograd::Function<FusedNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& frames, const at::Tensor& gamma,
                            bool with_silu) {
    context->save_for_backward({frames, gamma});
    context->saved_data["with_silu"] = with_silu;
    at::Tensor output = at::empty_like(frames);
    normalise_channels(frames, gamma, with_silu, output);
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    at::Tensor frames_gradient = at::empty_like(saved[0]), gamma_gradient = at::empty_like(saved[1]);
    normalise_channels_backward(gradients[0].contiguous(), saved[0], saved[1],
                                context->saved_data["with_silu"].toBool(), frames_gradient, gamma_gradient);
    return {frames_gradient, gamma_gradient, at::Tensor()};
  }
};

// Tap 2 meets every frame, tap 1 all but the last, tap 0 all but the last two.
class TapwiseConv : public torch::autograd::Function<TapwiseConv> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& frames, const at::Tensor& weight,
                            const at::Tensor& bias) {
    context->save_for_backward({frames, weight});
    at::Tensor output = conv_images(frames, weight.select(2, kTaps - 1), bias, /*stride=*/1, /*padding=*/1);
    for (int64_t shift = 1; shift < num_taps(frames); ++shift) {
      const int64_t count = frames.size(0) - shift;
      output.narrow(0, shift, count)
          .add_(conv_images(frames.narrow(0, 0, count), weight.select(2, kTaps - 1 - shift), {}, 1, 1));
    }
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &frames = saved[0], &weight = saved[1], gradient = gradients[0].contiguous();
    const std::array<bool, 2> needs = {context->needs_input_grad(0), context->needs_input_grad(1)};
    const bool needs_bias = context->needs_input_grad(2);
    at::Tensor frames_gradient, bias_gradient;
    at::Tensor weight_gradient = needs[1] ? at::zeros_like(weight) : at::Tensor();
    for (int64_t shift = 0; shift < num_taps(frames); ++shift) {
      const int64_t count = frames.size(0) - shift, tap = kTaps - 1 - shift;
      const auto [of_frames, of_tap, of_bias] = at::convolution_backward(
          to_images(gradient.narrow(0, shift, count)), to_images(frames.narrow(0, 0, count)),
          weight.select(2, tap).contiguous(at::MemoryFormat::ChannelsLast), at::IntArrayRef{weight.size(0)}, {1, 1},
          {1, 1}, {1, 1}, /*transposed=*/false, {0, 0}, /*groups=*/1, {needs[0], needs[1], needs_bias && shift == 0});
      if (shift == 0) bias_gradient = of_bias;
      if (needs[1]) weight_gradient.select(2, tap).copy_(of_tap);
      if (!needs[0]) continue;
      if (shift == 0) {
        frames_gradient = to_frames(of_frames, count);
      } else {
        frames_gradient.narrow(0, 0, count).add_(to_frames(of_frames, count));
      }
    }
    return {frames_gradient, weight_gradient, bias_gradient};
  }

 private:
  static int64_t num_taps(const at::Tensor& frames) { return std::min(kTaps, frames.size(0)); }
};

class InterleavePhases : public torch::autograd::Function<InterleavePhases> {
 public:
  static at::Tensor forward(AutogradContext*, const at::Tensor& phases) {
    at::Tensor output = at::empty(
        {phases.size(0), 2 * (phases.size(1) - 1), 2 * (phases.size(2) - 1), phases.size(3) / 4}, phases.options());
    interleave_phases(phases, output);
    return output;
  }

  static variable_list backward(AutogradContext*, const variable_list& gradients) {
    const at::Tensor gradient = gradients[0].contiguous();
    at::Tensor phases =
        at::empty({gradient.size(0), gradient.size(1) / 2 + 1, gradient.size(2) / 2 + 1, gradient.size(3) * 4},
                  gradient.options());
    separate_phases(gradient, phases);
    return {phases};
  }
};

// `phases` [N, R + 1, W + 1, 4 C] to [N, 2 R, 2 W, C], as pixel_passes.h says.
at::Tensor interleave(const at::Tensor& phases) {
  if (has_fused_passes(phases)) return InterleavePhases::apply(phases);
  const int64_t rows = phases.size(1) - 1, cols = phases.size(2) - 1;
  const std::vector<at::Tensor> parts = phases.chunk(4, /*dim=*/-1);
  const auto row_pair = [&](int64_t a) {
    const at::Tensor left = parts[2 * a].narrow(1, a, rows).narrow(2, 0, cols);
    const at::Tensor right = parts[2 * a + 1].narrow(1, a, rows).narrow(2, 1, cols);
    return at::stack({left, right}, 3);
  };
  return at::stack({row_pair(0), row_pair(1)}, 2).view({phases.size(0), 2 * rows, 2 * cols, -1});
}

// Sums of the taps along `axis` that meet the same pixel of the small image, for the even or the odd output.
at::Tensor fold_taps(const at::Tensor& weight, int64_t axis, int64_t phase) {
  const std::vector<at::Tensor> taps = weight.unbind(axis);
  return phase == 0 ? at::stack({taps[0], taps[1] + taps[2]}, axis) : at::stack({taps[0] + taps[1], taps[2]}, axis);
}

at::Tensor tap_product(const at::Tensor& frames, const at::Tensor& weight, int64_t tap, const at::Tensor& bias = {}) {
  return at::linear(frames, weight.select(2, tap).flatten(1), bias);
}

}  // namespace

at::Tensor channel_norm(const at::Tensor& frames, const at::Tensor& gamma, bool with_silu) {
  if (has_fused_passes(frames)) return FusedNorm::apply(frames, gamma.flatten(), with_silu);
  const at::ScalarType dtype = at::promote_types(frames.scalar_type(), at::kFloat);
  const at::Tensor wide = frames.to(dtype);
  const at::Tensor length = at::linalg_vector_norm(wide, 2, at::IntArrayRef{-1}, /*keepdim=*/true).clamp_min(1e-12);
  const double gain = std::sqrt(static_cast<double>(frames.size(-1)));
  const at::Tensor scaled = wide / length * (gamma.flatten().to(dtype) * gain);
  return (with_silu ? at::silu(scaled) : scaled).to(frames.scalar_type());
}

at::Tensor causal_conv(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias) {
  return TapwiseConv::apply(frames, weight, bias);
}

at::Tensor downsample_conv(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias) {
  return conv_images(at::constant_pad_nd(frames, {0, 0, 0, 1, 0, 1}), weight, bias, /*stride=*/2, /*padding=*/0);
}

at::Tensor upsample_conv(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias) {
  std::vector<at::Tensor> kernels;
  for (int64_t phase = 0; phase < 4; ++phase) {
    kernels.push_back(fold_taps(fold_taps(weight, 2, phase / 2), 3, phase % 2));
  }
  const at::Tensor phases = conv_images(frames, at::cat(kernels), bias.repeat({4}), /*stride=*/1, /*padding=*/1);
  return interleave(phases.flatten(0, 1)).unflatten(0, {frames.size(0), frames.size(1)});
}

at::Tensor halve_frames(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t count = frames.size(0);
  if (count == 1) return frames;
  at::Tensor halved = tap_product(frames.slice(0, 2, count, 2), weight, 2, bias);
  for (int64_t tap = 0; tap < 2; ++tap)
    halved = halved + tap_product(frames.slice(0, tap, count - 2 + tap, 2), weight, tap);
  return at::cat({frames.narrow(0, 0, 1), halved});
}

at::Tensor double_frames(const at::Tensor& frames, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t count = frames.size(0) - 1;
  if (count == 0) return frames;
  const at::Tensor later = frames.narrow(0, 1, count);
  // Zeros in front that the older taps meet need no product.
  at::Tensor pairs = tap_product(later, weight, kTaps - 1, bias);
  for (int64_t shift = 1; shift < std::min(kTaps, count); ++shift) {
    const at::Tensor older = tap_product(later.narrow(0, 0, count - shift), weight, kTaps - 1 - shift);
    pairs = at::cat({pairs.narrow(0, 0, shift), pairs.narrow(0, shift, count - shift) + older});
  }
  std::vector<int64_t> shape = frames.sizes().vec();
  shape[0] = 2 * count;
  const at::Tensor twice = pairs.view({count, -1, 2, frames.size(-1)}).transpose(1, 2).reshape(shape);
  return at::cat({frames.narrow(0, 0, 1), twice});
}

at::Tensor average_level(const at::Tensor& frames, int64_t out_width, int64_t frame_factor, int64_t pixel_factor) {
  const int64_t ft = frame_factor, fs = pixel_factor, batch = frames.size(1), width = frames.size(4);
  const int64_t missing = (ft - frames.size(0) % ft) % ft;
  const at::Tensor padded = missing ? at::constant_pad_nd(frames, {0, 0, 0, 0, 0, 0, 0, 0, missing, 0}) : frames;
  const int64_t count = padded.size(0) / ft, rows = padded.size(2) / fs, cols = padded.size(3) / fs;
  return padded.view({count, ft, batch, rows, fs, cols, fs, width})
      .permute({0, 2, 3, 5, 7, 1, 4, 6})
      .reshape({count, batch, rows, cols, out_width, width * ft * fs * fs / out_width})
      .mean(-1);
}

at::Tensor repeat_level(const at::Tensor& frames, int64_t out_width, int64_t frame_factor, int64_t pixel_factor) {
  const int64_t ft = frame_factor, fs = pixel_factor;
  const int64_t count = frames.size(0), batch = frames.size(1), rows = frames.size(2), cols = frames.size(3);
  const int64_t width = frames.size(4), copies = out_width * ft * fs * fs / width;
  const at::Tensor all = frames.unsqueeze(-1)
                             .expand({count, batch, rows, cols, width, copies})
                             .reshape({count, batch, rows, cols, out_width, ft, fs, fs})
                             .permute({0, 5, 1, 2, 6, 3, 7, 4})
                             .reshape({count * ft, batch, rows * fs, cols * fs, out_width});
  return all.narrow(0, ft - 1, all.size(0) - (ft - 1));
}

}  // namespace strobe::models::whole
