// The Wan autoencoders in their training form: whole clips in batches, with gradients.
//
// Contract  The results are those of `make_wan_vae` without normalisation of the latents, and autograd reaches the
//           clips, the latents and the tensors of `store`, which are used as they are: construct anew whenever those
//           change, which costs nothing where they have `dtype` and `device` already. Nothing recorded is overwritten.
//           For one frame the temporal convolutions of the resamplings take no part, and of each causal kernel only the
//           last tap does: the former get no gradient, the other taps a gradient of zero.
// Shapes    clips [B, 3, F, H, W] with F = temporal_stride * k + 1, H and W multiples of the spatial stride; latents
//           [B, z, k + 1, H / stride, W / stride].
// Errors    ShapeError for sizes that do not fit, ConfigError for a configuration from which no model can be built.
// Source    https://github.com/Wan-Video/Wan2.1; diffusers AutoencoderKLWan. Differs: no chunks. A temporal halving is
//           frame 0 and a convolution of stride 2 over all frames without padding; a doubling is frame 0 and a
//           zero-padded convolution over the others.
// Cost      activations of the whole clip stay until the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>

#include "models/vae/clip_codec.h"
#include "models/vae/wan_vae_config.h"
#include "weights/weight_store.h"

namespace strobe::models {

class WholeClipVae final : public ClipCodec {
 public:
  // `store` holds `wan_vae_parameters(config)`, for example over `weights::make_memory_source` of leaf tensors.
  WholeClipVae(const WanVaeConfig& config, const weights::WeightStore& store, at::ScalarType dtype, at::Device device);

  VaePosterior encode(const at::Tensor& clips) const override;
  at::Tensor decode(const at::Tensor& latents) const override;

 private:
  const at::Tensor& at(const std::string& name) const { return tensors_.at(name); }
  at::Tensor conv(const at::Tensor& frames, const std::string& name) const;
  at::Tensor linear(const at::Tensor& frames, const std::string& name) const;
  at::Tensor normed_conv(const at::Tensor& frames, const std::string& norm, const std::string& conv_name) const;
  at::Tensor res_block(const at::Tensor& frames, const std::string& name) const;
  at::Tensor attention(const at::Tensor& frames, const std::string& name) const;
  at::Tensor mid_block(const at::Tensor& frames, const std::string& name) const;
  // `flat` counts the blocks of a plain encoder, which numbers them across levels.
  at::Tensor down_level(at::Tensor frames, int64_t level, int64_t& flat) const;
  at::Tensor up_level(at::Tensor frames, int64_t level) const;

  WanVaeConfig config_;
  at::TensorOptions options_;
  std::unordered_map<std::string, at::Tensor> tensors_;  // by diffusers name
};

}  // namespace strobe::models
