// Convolutions of the Wan autoencoders on channels-last frames, with the state that carries them across chunks.
//
// Contract  Activations are [F, R, W, C] contiguous in the model's dtype: frames are the batch of the 2-D layers, and
//           the depth of the 3-D ones. Layers are immutable; what a chunk leaves for the next one is in a `Stream`, of
//           which each decode or encode has its own. The first chunk of a stream is one frame.
// Method    A causal 3x3x3 convolution reads a buffer whose first two frames are the history; the layer before writes
//           behind them, so nothing is padded or concatenated. The first chunk has only zeros before it and needs the
//           last temporal tap alone: a third of the arithmetic. On the CPU in float32 the kernels are oneDNN's, with
//           weights reordered once, at first use.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "weights/weight_store.h"

namespace strobe::models {

// The name of a stage and its output as [C, F, R, W].
using VaeProbe = std::function<void(const std::string& name, const at::Tensor& value)>;

// What one run over a clip (or a tile of it) carries from chunk to chunk.
class Stream {
 public:
  Stream(size_t num_slots, const VaeProbe* probe = nullptr, std::string prefix = {})
      : history_(num_slots), probe_(probe), prefix_(std::move(prefix)) {}

  at::Tensor& history(size_t slot) { return history_[slot]; }
  bool is_first() const { return chunk_ == 0; }
  void next_chunk() { ++chunk_; }

  // Uninitialised memory of the given shape; the call invalidates what the previous one returned.
  at::Tensor scratch(at::IntArrayRef shape, const at::TensorOptions& options);

  void observe(const char* stage, const at::Tensor& frames) const;

 private:
  std::vector<at::Tensor> history_;  // per stateful layer; undefined before its first chunk
  at::Tensor scratch_;
  const VaeProbe* probe_;
  std::string prefix_;
  int64_t chunk_ = 0;
};

// Loads a model's tensors and numbers the layers that keep history.
class LayerLoader {
 public:
  LayerLoader(const weights::WeightStore& store, at::ScalarType dtype, at::Device device)
      : store_(store), dtype_(dtype), device_(device) {}
  at::Tensor load(const std::string& name) const { return store_.load(name, dtype_, device_); }
  bool contains(const std::string& name) const { return store_.contains(name); }
  size_t new_slot() { return num_slots_++; }
  size_t num_slots() const { return num_slots_; }

 private:
  const weights::WeightStore& store_;
  at::ScalarType dtype_;
  at::Device device_;
  size_t num_slots_ = 0;
};

// A convolution kernel with weights reordered for oneDNN at first use; copies share the reordered weights.
class ConvKernel {
 public:
  ConvKernel() = default;
  // `weight` is [out, in, kernel...] with two or three kernel axes; all axes have the same stride.
  ConvKernel(at::Tensor weight, at::Tensor bias, std::vector<int64_t> padding, int64_t stride = 1);

  // [F, R, W, in] to [F', R', W', out]; for two kernel axes each frame alone.
  at::Tensor run(const at::Tensor& input) const;
  // Adds the result to `sum`, in place where the kernel can, and returns it.
  at::Tensor run_add(const at::Tensor& input, at::Tensor sum) const;

  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }

 private:
  struct Packed {
    std::once_flag once;
    at::Tensor weight;
  };
  const at::Tensor& packed(at::IntArrayRef input_sizes) const;

  at::Tensor weight_, bias_;
  std::vector<int64_t> padding_, stride_, dilation_;
  std::shared_ptr<Packed> packed_;  // null where oneDNN's own entry points do not apply
};

// Causal 3x3x3 convolution.
class CausalConv {
 public:
  CausalConv() = default;
  CausalConv(LayerLoader& loader, const std::string& name);

  // Where the layer's input goes: call `open`, write frames behind the history, then run.
  struct Input {
    at::Tensor buffer;  // [history + F, R, W, in]
    at::Tensor frames;  // [F, R, W, in], the view to fill
  };
  Input open(Stream& stream, at::IntArrayRef frames_shape, const at::TensorOptions& options) const;
  at::Tensor run(Stream& stream, const Input& input) const;
  at::Tensor run_add(Stream& stream, const Input& input, at::Tensor sum) const;
  // All three steps, for an input that exists already.
  at::Tensor run_frames(Stream& stream, const at::Tensor& frames) const;

 private:
  void keep_history(Stream& stream, const Input& input) const;
  at::Tensor last_tap(const at::Tensor& frame) const;

  ConvKernel kernel_;
  size_t slot_ = 0;
};

// A 1x1 convolution over any number of axes.
class PointwiseConv {
 public:
  PointwiseConv() = default;
  PointwiseConv(const LayerLoader& loader, const std::string& name);
  at::Tensor run(const at::Tensor& frames) const;

 private:
  at::Tensor weight_, bias_;  // [out, in], [out]
};

// L2 norm over channels with a gain, optionally followed by SiLU; float32 arithmetic for every dtype.
class ChannelNorm {
 public:
  ChannelNorm() = default;
  ChannelNorm(const LayerLoader& loader, const std::string& name);
  void run(const at::Tensor& frames, bool with_silu, at::Tensor& output) const;

 private:
  at::Tensor gamma_;  // [C]
};

// Nearest 2x upsampling followed by a 3x3 convolution, as one 2x2 convolution on the small image with a set of kernels
// for each of the four output phases: 4/9 of the arithmetic; weights that meet the same pixel are summed beforehand.
class UpsampleConv {
 public:
  UpsampleConv() = default;
  UpsampleConv(const LayerLoader& loader, const std::string& name);
  at::Tensor run(const at::Tensor& frames) const;  // [F, R, W, in] to [F, 2R, 2W, out]

 private:
  ConvKernel phases_;
  int64_t out_ = 0;
};

// Zero row below and column on the right, then a 3x3 convolution with stride 2.
class DownsampleConv {
 public:
  DownsampleConv() = default;
  DownsampleConv(const LayerLoader& loader, const std::string& name);
  at::Tensor run(const at::Tensor& frames) const;

 private:
  ConvKernel kernel_;
};

// Temporal convolution that doubles the frames. The first chunk passes unchanged and is not remembered.
class DoubleFrames {
 public:
  DoubleFrames() = default;
  DoubleFrames(LayerLoader& loader, const std::string& name);
  at::Tensor run(Stream& stream, const at::Tensor& frames) const;

 private:
  std::vector<at::Tensor> taps_;  // three of [in, 2 in]
  at::Tensor bias_;
  size_t slot_ = 0;
};

// Temporal convolution with stride 2 over the last frame of the chunk before and this chunk. The first chunk passes.
class HalveFrames {
 public:
  HalveFrames() = default;
  HalveFrames(LayerLoader& loader, const std::string& name);
  at::Tensor run(Stream& stream, const at::Tensor& frames) const;

 private:
  std::vector<at::Tensor> taps_;  // three of [in, out]
  at::Tensor bias_;
  size_t slot_ = 0;
};

}  // namespace strobe::models
