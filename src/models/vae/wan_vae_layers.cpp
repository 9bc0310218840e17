#include "models/vae/wan_vae_layers.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include "core/error.h"
#include "core/torch.h"
#include "models/vae/pixel_passes.h"

namespace strobe::models {
namespace {

constexpr int64_t kHistory = 2;
// Narrower tensors have ambiguous strides, and blocked weights would be mostly padding.
constexpr int64_t kLeastPackedWidth = 4;

// oneDNN entry points that LibTorch registers for its compiler; absent in builds without oneDNN.
struct MkldnnOps {
  std::optional<c10::OperatorHandle> reorder, convolve, convolve_add;
  bool are_present() const { return reorder && convolve && convolve_add; }
};

const MkldnnOps& mkldnn_ops() {
  static const MkldnnOps ops = [] {
    auto& dispatcher = c10::Dispatcher::singleton();
    return MkldnnOps{dispatcher.findSchema({"mkldnn::_reorder_convolution_weight", ""}),
                     dispatcher.findSchema({"mkldnn::_convolution_pointwise", ""}),
                     dispatcher.findSchema({"mkldnn::_convolution_pointwise_", "binary"})};
  }();
  return ops;
}

at::Tensor call(const c10::OperatorHandle& op, torch::jit::Stack stack) {
  op.callBoxed(stack);
  return stack.at(0).toTensor();
}

c10::List<std::optional<at::Scalar>> no_scalars() { return c10::List<std::optional<at::Scalar>>(); }

// [F, R, W, C] as the [N, C, ...] that convolutions take, without a copy.
at::Tensor to_channels_second(const at::Tensor& frames, int64_t num_kernel_axes) {
  return num_kernel_axes == 3 ? frames.permute({3, 0, 1, 2}).unsqueeze(0) : frames.permute({0, 3, 1, 2});
}

at::Tensor to_channels_last(const at::Tensor& output, int64_t num_kernel_axes) {
  const at::Tensor frames =
      num_kernel_axes == 3 ? output.squeeze(0).permute({1, 2, 3, 0}) : output.permute({0, 2, 3, 1});
  return frames.contiguous();
}

at::MemoryFormat channels_last(int64_t num_kernel_axes) {
  return num_kernel_axes == 3 ? at::MemoryFormat::ChannelsLast3d : at::MemoryFormat::ChannelsLast;
}

std::vector<at::Tensor> split_taps(const at::Tensor& weight) {
  std::vector<at::Tensor> taps;
  for (int64_t tap = 0; tap < weight.size(2); ++tap) {
    taps.push_back(weight.select(2, tap).flatten(1).t().contiguous());
  }
  return taps;
}

}  // namespace

at::Tensor Stream::scratch(at::IntArrayRef shape, const at::TensorOptions& options) {
  const int64_t count = c10::multiply_integers(shape);
  if (!scratch_.defined() || scratch_.numel() < count) {
    scratch_.reset();
    scratch_ = at::empty({count}, options);
  }
  return scratch_.narrow(0, 0, count).view(shape);
}

void Stream::observe(const char* stage, const at::Tensor& frames) const {
  if (!probe_ || !*probe_) return;
  (*probe_)(fmt::format("{}chunk{}.{}", prefix_, chunk_, stage), frames.permute({3, 0, 1, 2}).contiguous());
}

ConvKernel::ConvKernel(at::Tensor weight, at::Tensor bias, std::vector<int64_t> padding, int64_t stride)
    : weight_(std::move(weight)),
      bias_(std::move(bias)),
      padding_(std::move(padding)),
      stride_(padding_.size(), stride),
      dilation_(padding_.size(), 1) {
  if (weight_.is_cpu() && weight_.scalar_type() == at::kFloat && mkldnn_ops().are_present() &&
      std::min(weight_.size(0), weight_.size(1)) >= kLeastPackedWidth) {
    packed_ = std::make_shared<Packed>();
  }
}

const at::Tensor& ConvKernel::packed(at::IntArrayRef input_sizes) const {
  std::call_once(packed_->once, [&] {
    packed_->weight =
        call(*mkldnn_ops().reorder, {weight_, padding_, stride_, dilation_, int64_t{1}, input_sizes.vec()});
  });
  return packed_->weight;
}

at::Tensor ConvKernel::run(const at::Tensor& input) const {
  const int64_t axes = static_cast<int64_t>(padding_.size());
  const at::Tensor x = to_channels_second(input, axes);
  if (packed_) {
    return to_channels_last(call(*mkldnn_ops().convolve, {x, packed(x.sizes()), bias_, padding_, stride_, dilation_,
                                                          int64_t{1}, "none", no_scalars(), ""}),
                            axes);
  }
  const at::Tensor weight = weight_.contiguous(channels_last(axes));
  return to_channels_last(at::convolution(x, weight, bias_, stride_, padding_, dilation_, false,
                                          std::vector<int64_t>(padding_.size(), 0), 1),
                          axes);
}

at::Tensor ConvKernel::run_add(const at::Tensor& input, at::Tensor sum) const {
  if (!packed_) return sum.add_(run(input));
  const int64_t axes = static_cast<int64_t>(padding_.size());
  const at::Tensor x = to_channels_second(input, axes);
  const at::Tensor y = to_channels_second(sum, axes);
  const at::Tensor result =
      call(*mkldnn_ops().convolve_add, {y, x, packed(x.sizes()), bias_, padding_, stride_, dilation_, int64_t{1}, "add",
                                        c10::IValue(1.0), c10::IValue(), no_scalars(), c10::IValue()});
  return to_channels_last(result, axes);
}

CausalConv::CausalConv(LayerLoader& loader, const std::string& name)
    : kernel_(loader.load(name + ".weight"), loader.load(name + ".bias"), {0, 1, 1}), slot_(loader.new_slot()) {}

CausalConv::Input CausalConv::open(Stream& stream, at::IntArrayRef shape, const at::TensorOptions& options) const {
  if (stream.is_first()) {
    at::Tensor frame = stream.scratch(shape, options);
    return {frame, frame};
  }
  at::Tensor buffer = stream.scratch({kHistory + shape[0], shape[1], shape[2], shape[3]}, options);
  buffer.narrow(0, 0, kHistory).copy_(stream.history(slot_));
  return {buffer, buffer.narrow(0, kHistory, shape[0])};
}

void CausalConv::keep_history(Stream& stream, const Input& input) const {
  at::Tensor& history = stream.history(slot_);
  if (stream.is_first()) {
    history = at::cat({at::zeros_like(input.frames), input.frames});
  } else {
    history.copy_(input.buffer.narrow(0, input.buffer.size(0) - kHistory, kHistory));
  }
}

at::Tensor CausalConv::last_tap(const at::Tensor& frame) const {
  const at::Tensor weight = kernel_.weight().select(2, 2).contiguous(at::MemoryFormat::ChannelsLast);
  return to_channels_last(at::conv2d(to_channels_second(frame, 2), weight, kernel_.bias(), 1, 1), 2);
}

at::Tensor CausalConv::run(Stream& stream, const Input& input) const {
  keep_history(stream, input);
  return stream.is_first() ? last_tap(input.buffer) : kernel_.run(input.buffer);
}

at::Tensor CausalConv::run_add(Stream& stream, const Input& input, at::Tensor sum) const {
  keep_history(stream, input);
  return stream.is_first() ? sum.add_(last_tap(input.buffer)) : kernel_.run_add(input.buffer, std::move(sum));
}

at::Tensor CausalConv::run_frames(Stream& stream, const at::Tensor& frames) const {
  const Input input = open(stream, frames.sizes(), frames.options());
  at::Tensor target = input.frames;
  target.copy_(frames);
  return run(stream, input);
}

PointwiseConv::PointwiseConv(const LayerLoader& loader, const std::string& name)
    : weight_(loader.load(name + ".weight").flatten(1)), bias_(loader.load(name + ".bias")) {}

at::Tensor PointwiseConv::run(const at::Tensor& frames) const { return at::linear(frames, weight_, bias_); }

ChannelNorm::ChannelNorm(const LayerLoader& loader, const std::string& name)
    : gamma_(loader.load(name + ".gamma").flatten()) {}

void ChannelNorm::run(const at::Tensor& frames, bool with_silu, at::Tensor& output) const {
  if (frames.is_cpu() && frames.scalar_type() == at::kFloat) {
    normalise_channels(frames, gamma_, with_silu, output);
    return;
  }
  const at::Tensor wide = frames.to(at::kFloat);
  const at::Tensor length = at::linalg_vector_norm(wide, 2, at::IntArrayRef{-1}, /*keepdim=*/true).clamp_min_(1e-12);
  const double gain = std::sqrt(static_cast<double>(frames.size(-1)));
  at::Tensor scaled = (wide / length * gain * gamma_.to(at::kFloat)).to(frames.scalar_type());
  output.copy_(with_silu ? at::silu(scaled) : scaled);
}

UpsampleConv::UpsampleConv(const LayerLoader& loader, const std::string& name) {
  const at::Tensor stored = loader.load(name + ".weight");
  const at::Tensor weight = stored.to(at::kDouble);  // sums of taps round once
  out_ = weight.size(0);
  // Taps -1, 0, +1 of an even output meet small pixels -1, 0, 0; of an odd one 0, 0, +1.
  const auto fold = [](const at::Tensor& w, int64_t axis, int64_t phase) {
    const at::Tensor a = w.select(axis, 0), b = w.select(axis, 1), c = w.select(axis, 2);
    return phase == 0 ? at::stack({a, b + c}, axis) : at::stack({a + b, c}, axis);
  };
  std::vector<at::Tensor> kernels;
  for (int64_t phase = 0; phase < 4; ++phase) kernels.push_back(fold(fold(weight, 2, phase / 2), 3, phase % 2));
  const at::Tensor bias = loader.load(name + ".bias");
  phases_ = ConvKernel(at::cat(kernels).to(stored.scalar_type()).contiguous(), bias.repeat({4}), {1, 1});
}

at::Tensor UpsampleConv::run(const at::Tensor& frames) const {
  const at::Tensor phases = phases_.run(frames);
  const int64_t rows = frames.size(1), cols = frames.size(2);
  at::Tensor output = at::empty({frames.size(0), 2 * rows, 2 * cols, out_}, frames.options());
  if (frames.is_cpu() && frames.scalar_type() == at::kFloat) {
    interleave_phases(phases, output);
    return output;
  }
  const at::Tensor split = output.view({frames.size(0), rows, 2, cols, 2, out_});
  for (int64_t phase = 0; phase < 4; ++phase) {
    const int64_t a = phase / 2, b = phase % 2;
    split.select(4, b).select(2, a).copy_(phases.narrow(1, a, rows).narrow(2, b, cols).narrow(3, phase * out_, out_));
  }
  return output;
}

DownsampleConv::DownsampleConv(const LayerLoader& loader, const std::string& name)
    : kernel_(loader.load(name + ".weight"), loader.load(name + ".bias"), {0, 0}, 2) {}

at::Tensor DownsampleConv::run(const at::Tensor& frames) const {
  return kernel_.run(at::constant_pad_nd(frames, {0, 0, 0, 1, 0, 1}));
}

DoubleFrames::DoubleFrames(LayerLoader& loader, const std::string& name)
    : taps_(split_taps(loader.load(name + ".weight"))), bias_(loader.load(name + ".bias")), slot_(loader.new_slot()) {}

at::Tensor DoubleFrames::run(Stream& stream, const at::Tensor& frames) const {
  if (stream.is_first()) return frames;
  at::Tensor& history = stream.history(slot_);
  const int64_t count = frames.size(0), rows = frames.size(1), cols = frames.size(2), width = frames.size(3);
  if (!history.defined()) history = at::zeros({kHistory, rows, cols, width}, frames.options());
  const at::Tensor input = at::cat({history, frames});
  history = input.narrow(0, count, kHistory).clone();
  const auto pixels = [&](int64_t tap) { return input.narrow(0, tap, count).view({-1, width}); };
  at::Tensor output = at::addmm(bias_, pixels(0), taps_[0]);
  output.addmm_(pixels(1), taps_[1]).addmm_(pixels(2), taps_[2]);
  return output.view({count, rows * cols, 2, width}).transpose(1, 2).contiguous().view({2 * count, rows, cols, width});
}

HalveFrames::HalveFrames(LayerLoader& loader, const std::string& name)
    : taps_(split_taps(loader.load(name + ".weight"))), bias_(loader.load(name + ".bias")), slot_(loader.new_slot()) {}

at::Tensor HalveFrames::run(Stream& stream, const at::Tensor& frames) const {
  at::Tensor& history = stream.history(slot_);
  const int64_t count = frames.size(0), width = frames.size(3);
  if (stream.is_first()) {
    history = frames.narrow(0, count - 1, 1).clone();
    return frames;
  }
  const at::Tensor input = at::cat({history, frames});
  history = frames.narrow(0, count - 1, 1).clone();
  const auto pixels = [&](int64_t tap) { return input.slice(0, tap, tap + count - 1, 2).reshape({-1, width}); };
  at::Tensor output = at::addmm(bias_, pixels(0), taps_[0]);
  output.addmm_(pixels(1), taps_[1]).addmm_(pixels(2), taps_[2]);
  return output.view({count / 2, frames.size(1), frames.size(2), -1});
}

}  // namespace strobe::models
