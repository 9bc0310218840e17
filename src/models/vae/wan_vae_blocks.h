// Blocks and the two halves of the Wan autoencoders, on channels-last chunks of frames.
//
// Contract  As wan_vae_layers.h: [F, R, W, C] in the model's dtype, state in the Stream, first chunk one frame.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "models/vae/wan_vae_config.h"
#include "models/vae/wan_vae_layers.h"

namespace strobe::models {

// Norm, SiLU and a causal convolution, in one pass and one kernel.
class NormedConv {
 public:
  NormedConv() = default;
  NormedConv(LayerLoader& loader, const std::string& norm, const std::string& conv);
  at::Tensor run(Stream& stream, const at::Tensor& frames) const;
  at::Tensor run_add(Stream& stream, const at::Tensor& frames, at::Tensor sum) const;

 private:
  CausalConv::Input fill(Stream& stream, const at::Tensor& frames) const;

  ChannelNorm norm_;
  CausalConv conv_;
};

class ResBlock {
 public:
  ResBlock(LayerLoader& loader, const std::string& name);
  // Overwrites its input where that saves memory: a caller that needs it afterwards passes a copy.
  at::Tensor run(Stream& stream, at::Tensor frames) const;

 private:
  NormedConv first_, second_;
  std::optional<PointwiseConv> shortcut_;
};

// One head over the pixels of each frame.
class FrameAttention {
 public:
  FrameAttention() = default;
  FrameAttention(const LayerLoader& loader, const std::string& name);
  at::Tensor run(const at::Tensor& frames) const;

 private:
  ChannelNorm norm_;
  PointwiseConv qkv_, projection_;
};

class MidBlock {
 public:
  MidBlock(LayerLoader& loader, const std::string& name);
  at::Tensor run(Stream& stream, at::Tensor frames) const;

 private:
  ResBlock first_;
  FrameAttention attention_;
  ResBlock second_;
};

// The parameter-free shortcut around a residual level: averages or repeats over channels, frames, rows and columns.
struct LevelShortcut {
  int64_t out_width = 0;
  int64_t frame_factor = 1;
  int64_t pixel_factor = 1;

  at::Tensor average(const at::Tensor& frames) const;
  at::Tensor repeat(const Stream& stream, const at::Tensor& frames) const;
};

class WanEncoder {
 public:
  WanEncoder(const WanVaeConfig& config, LayerLoader& loader);
  // One chunk, patched, to [F', R', W', 2 z] before quant_conv.
  at::Tensor run(Stream& stream, const at::Tensor& frames) const;

 private:
  struct Level {
    std::vector<ResBlock> blocks;
    std::optional<DownsampleConv> downsample;
    std::optional<HalveFrames> halve;
    std::optional<LevelShortcut> shortcut;
  };
  static Level make_level(const WanVaeConfig& config, LayerLoader& loader, int64_t level, int64_t& flat);
  CausalConv conv_in_;
  std::vector<Level> levels_;
  std::optional<MidBlock> mid_;
  NormedConv head_;
};

class WanDecoder {
 public:
  WanDecoder(const WanVaeConfig& config, LayerLoader& loader);
  // One chunk after post_quant_conv to patched pixels [F', R', W', 3 p^2], not clamped.
  at::Tensor run(Stream& stream, const at::Tensor& latents) const;

 private:
  struct Level {
    std::vector<ResBlock> blocks;
    std::optional<DoubleFrames> twice;
    std::optional<UpsampleConv> upsample;
    std::optional<LevelShortcut> shortcut;
  };
  static Level make_level(const WanVaeConfig& config, LayerLoader& loader, int64_t level);
  CausalConv conv_in_;
  std::optional<MidBlock> mid_;
  std::vector<Level> levels_;
  NormedConv head_;
};

}  // namespace strobe::models
