#include "models/vae/wan_vae_whole.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/torch.h"
// After the precompiled header.
#include "models/vae/wan_vae_whole_layers.h"

namespace strobe::models {
namespace {

// [B, 3, F, H, W] to [F, B, R, W, 3 p^2]; patched channels are ordered (colour, column offset, row offset).
at::Tensor to_patches(const at::Tensor& clips, int64_t p) {
  const int64_t batch = clips.size(0), count = clips.size(2), rows = clips.size(3) / p, cols = clips.size(4) / p;
  return clips.reshape({batch, 3, count, rows, p, cols, p})
      .permute({2, 0, 3, 5, 1, 6, 4})
      .reshape({count, batch, rows, cols, 3 * p * p});
}

at::Tensor from_patches(const at::Tensor& patches, int64_t p) {
  const int64_t count = patches.size(0), batch = patches.size(1), rows = patches.size(2), cols = patches.size(3);
  return patches.reshape({count, batch, rows, cols, 3, p, p})
      .permute({1, 4, 0, 2, 6, 3, 5})
      .reshape({batch, 3, count, rows * p, cols * p});
}

}  // namespace

WholeClipVae::WholeClipVae(const WanVaeConfig& config, const weights::WeightStore& store, at::ScalarType dtype,
                           at::Device device)
    : config_(config), options_(at::TensorOptions().dtype(dtype).device(device)) {
  config.validate();
  for (const weights::TensorSpec& spec : wan_vae_parameters(config)) {
    tensors_.emplace(spec.name, store.load(spec.name, dtype, device));
  }
}

at::Tensor WholeClipVae::conv(const at::Tensor& frames, const std::string& name) const {
  return whole::causal_conv(frames, at(name + ".weight"), at(name + ".bias"));
}

at::Tensor WholeClipVae::linear(const at::Tensor& frames, const std::string& name) const {
  return at::linear(frames, at(name + ".weight").flatten(1), at(name + ".bias"));
}

at::Tensor WholeClipVae::normed_conv(const at::Tensor& frames, const std::string& norm,
                                     const std::string& conv_name) const {
  return conv(whole::channel_norm(frames, at(norm + ".gamma"), /*with_silu=*/true), conv_name);
}

at::Tensor WholeClipVae::res_block(const at::Tensor& frames, const std::string& name) const {
  const at::Tensor hidden = normed_conv(frames, name + ".norm1", name + ".conv1");
  const at::Tensor change = normed_conv(hidden, name + ".norm2", name + ".conv2");
  const std::string shortcut = name + ".conv_shortcut";
  return change + (tensors_.contains(shortcut + ".weight") ? linear(frames, shortcut) : frames);
}

at::Tensor WholeClipVae::attention(const at::Tensor& frames, const std::string& name) const {
  const at::Tensor qkv =
      linear(whole::channel_norm(frames, at(name + ".norm.gamma"), /*with_silu=*/false), name + ".to_qkv");
  const std::vector<at::Tensor> parts =
      qkv.view({frames.size(0) * frames.size(1), 1, -1, qkv.size(-1)}).chunk(3, /*dim=*/-1);
  const at::Tensor attended = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
  return frames + linear(attended.reshape(frames.sizes()), name + ".proj");
}

at::Tensor WholeClipVae::mid_block(const at::Tensor& frames, const std::string& name) const {
  return res_block(attention(res_block(frames, name + ".resnets.0"), name + ".attentions.0"), name + ".resnets.1");
}

at::Tensor WholeClipVae::down_level(at::Tensor frames, int64_t level, int64_t& flat) const {
  const bool is_last = level == config_.num_levels() - 1;
  const bool halves = !is_last && config_.halves_frames[level];
  const std::string place = fmt::format("encoder.down_blocks.{}.", level);
  const auto flat_name = [&] { return fmt::format("encoder.down_blocks.{}", flat++); };
  const at::Tensor before = frames;
  for (int64_t block = 0; block < config_.num_res_blocks; ++block) {
    frames = res_block(frames, config_.is_residual ? fmt::format("{}resnets.{}", place, block) : flat_name());
  }
  if (!is_last) {
    const std::string name = config_.is_residual ? place + "downsampler" : flat_name();
    frames = whole::downsample_conv(frames, at(name + ".resample.1.weight"), at(name + ".resample.1.bias"));
    if (halves) frames = whole::halve_frames(frames, at(name + ".time_conv.weight"), at(name + ".time_conv.bias"));
  }
  if (!config_.is_residual) return frames;
  return frames + whole::average_level(before, config_.encoder_out(level), halves ? 2 : 1, is_last ? 1 : 2);
}

at::Tensor WholeClipVae::up_level(at::Tensor frames, int64_t level) const {
  const at::Tensor before = frames;
  const std::string place = fmt::format("decoder.up_blocks.{}.", level);
  for (int64_t block = 0; block <= config_.num_res_blocks; ++block) {
    frames = res_block(frames, fmt::format("{}resnets.{}", place, block));
  }
  if (level == config_.num_levels() - 1) return frames;
  const bool doubles = config_.doubles_frames(level);
  const std::string name = place + (config_.is_residual ? "upsampler" : "upsamplers.0");
  if (doubles) frames = whole::double_frames(frames, at(name + ".time_conv.weight"), at(name + ".time_conv.bias"));
  frames = whole::upsample_conv(frames, at(name + ".resample.1.weight"), at(name + ".resample.1.bias"));
  if (!config_.is_residual) return frames;
  return frames + whole::repeat_level(before, config_.decoder_out(level), doubles ? 2 : 1, /*pixel_factor=*/2);
}

VaePosterior WholeClipVae::encode(const at::Tensor& clips) const {
  const int64_t stride = config_.spatial_stride();
  STROBE_CHECK(clips.dim() == 5 && clips.size(1) == 3 && clips.numel() > 0 &&
                   clips.size(2) % config_.temporal_stride() == 1 % config_.temporal_stride() &&
                   clips.size(3) % stride == 0 && clips.size(4) % stride == 0,
               "encode: expected clips [B, 3, {} k + 1, {} m, {} n], got [{}]", config_.temporal_stride(), stride,
               stride, fmt::join(clips.sizes(), ", "));
  at::Tensor frames = conv(to_patches(clips.to(options_), config_.patch_size), "encoder.conv_in");
  int64_t flat = 0;
  for (int64_t level = 0; level < config_.num_levels(); ++level) frames = down_level(frames, level, flat);
  frames = normed_conv(mid_block(frames, "encoder.mid_block"), "encoder.norm_out", "encoder.conv_out");
  const std::vector<at::Tensor> moments = linear(frames, "quant_conv").permute({1, 4, 0, 2, 3}).chunk(2, /*dim=*/1);
  return {.mean = moments[0].contiguous(), .log_variance = moments[1].contiguous()};
}

at::Tensor WholeClipVae::decode(const at::Tensor& latents) const {
  STROBE_CHECK(latents.dim() == 5 && latents.size(1) == config_.latent_channels && latents.numel() > 0,
               "decode: expected latents [B, {}, F, H, W], got [{}]", config_.latent_channels,
               fmt::join(latents.sizes(), ", "));
  at::Tensor frames = linear(latents.to(options_).permute({2, 0, 3, 4, 1}).contiguous(), "post_quant_conv");
  frames = mid_block(conv(frames, "decoder.conv_in"), "decoder.mid_block");
  for (int64_t level = 0; level < config_.num_levels(); ++level) frames = up_level(frames, level);
  return from_patches(normed_conv(frames, "decoder.norm_out", "decoder.conv_out"), config_.patch_size);
}

}  // namespace strobe::models
