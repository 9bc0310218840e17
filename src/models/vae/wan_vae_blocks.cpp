#include "models/vae/wan_vae_blocks.h"

#include "core/torch.h"

namespace strobe::models {

NormedConv::NormedConv(LayerLoader& loader, const std::string& norm, const std::string& conv)
    : norm_(loader, norm), conv_(loader, conv) {}

CausalConv::Input NormedConv::fill(Stream& stream, const at::Tensor& frames) const {
  CausalConv::Input input = conv_.open(stream, frames.sizes(), frames.options());
  norm_.run(frames, /*with_silu=*/true, input.frames);
  return input;
}

at::Tensor NormedConv::run(Stream& stream, const at::Tensor& frames) const {
  return conv_.run(stream, fill(stream, frames));
}

at::Tensor NormedConv::run_add(Stream& stream, const at::Tensor& frames, at::Tensor sum) const {
  return conv_.run_add(stream, fill(stream, frames), std::move(sum));
}

ResBlock::ResBlock(LayerLoader& loader, const std::string& name)
    : first_(loader, name + ".norm1", name + ".conv1"), second_(loader, name + ".norm2", name + ".conv2") {
  if (loader.contains(name + ".conv_shortcut.weight")) shortcut_.emplace(loader, name + ".conv_shortcut");
}

at::Tensor ResBlock::run(Stream& stream, at::Tensor frames) const {
  const at::Tensor hidden = first_.run(stream, frames);
  if (shortcut_) frames = shortcut_->run(frames);
  return second_.run_add(stream, hidden, std::move(frames));
}

FrameAttention::FrameAttention(const LayerLoader& loader, const std::string& name)
    : norm_(loader, name + ".norm"), qkv_(loader, name + ".to_qkv"), projection_(loader, name + ".proj") {}

at::Tensor FrameAttention::run(const at::Tensor& frames) const {
  at::Tensor normed = at::empty_like(frames);
  norm_.run(frames, /*with_silu=*/false, normed);
  const int64_t width = frames.size(3);
  const at::Tensor qkv = qkv_.run(normed).view({frames.size(0), 1, -1, 3 * width});
  const at::Tensor attended = at::scaled_dot_product_attention(qkv.narrow(-1, 0, width), qkv.narrow(-1, width, width),
                                                               qkv.narrow(-1, 2 * width, width));
  return projection_.run(attended.reshape(frames.sizes())).add_(frames);
}

MidBlock::MidBlock(LayerLoader& loader, const std::string& name)
    : first_(loader, name + ".resnets.0"),
      attention_(loader, name + ".attentions.0"),
      second_(loader, name + ".resnets.1") {}

at::Tensor MidBlock::run(Stream& stream, at::Tensor frames) const {
  return second_.run(stream, attention_.run(first_.run(stream, std::move(frames))));
}

at::Tensor LevelShortcut::average(const at::Tensor& frames) const {
  const int64_t ft = frame_factor, fs = pixel_factor, width = frames.size(3);
  const int64_t missing = (ft - frames.size(0) % ft) % ft;
  const at::Tensor padded = missing ? at::constant_pad_nd(frames, {0, 0, 0, 0, 0, 0, missing, 0}) : frames;
  const int64_t count = padded.size(0) / ft, rows = padded.size(1) / fs, cols = padded.size(2) / fs;
  return padded.view({count, ft, rows, fs, cols, fs, width})
      .permute({0, 2, 4, 6, 1, 3, 5})
      .reshape({count, rows, cols, out_width, width * ft * fs * fs / out_width})
      .mean(-1);
}

at::Tensor LevelShortcut::repeat(const Stream& stream, const at::Tensor& frames) const {
  const int64_t ft = frame_factor, fs = pixel_factor;
  const int64_t count = frames.size(0), rows = frames.size(1), cols = frames.size(2), width = frames.size(3);
  const int64_t copies = out_width * ft * fs * fs / width;
  const at::Tensor all = frames.unsqueeze(-1)
                             .expand({count, rows, cols, width, copies})
                             .reshape({count, rows, cols, out_width, ft, fs, fs})
                             .permute({0, 4, 1, 5, 2, 6, 3})
                             .reshape({count * ft, rows * fs, cols * fs, out_width});
  return stream.is_first() ? all.narrow(0, ft - 1, all.size(0) - (ft - 1)) : all;
}

WanEncoder::Level WanEncoder::make_level(const WanVaeConfig& config, LayerLoader& loader, int64_t level,
                                         int64_t& flat) {
  Level made;
  const std::string place = fmt::format("encoder.down_blocks.{}.", level);
  const auto flat_name = [&] { return fmt::format("encoder.down_blocks.{}", flat++); };
  for (int64_t block = 0; block < config.num_res_blocks; ++block) {
    made.blocks.emplace_back(loader, config.is_residual ? fmt::format("{}resnets.{}", place, block) : flat_name());
  }
  const bool is_last = level == config.num_levels() - 1;
  const bool halves = !is_last && config.halves_frames[level];
  if (config.is_residual) made.shortcut = LevelShortcut{config.encoder_out(level), halves ? 2 : 1, is_last ? 1 : 2};
  if (is_last) return made;
  const std::string name = config.is_residual ? place + "downsampler" : flat_name();
  made.downsample.emplace(loader, name + ".resample.1");
  if (halves) made.halve.emplace(loader, name + ".time_conv");
  return made;
}

WanEncoder::WanEncoder(const WanVaeConfig& config, LayerLoader& loader) : conv_in_(loader, "encoder.conv_in") {
  int64_t flat = 0;
  for (int64_t level = 0; level < config.num_levels(); ++level) {
    levels_.push_back(make_level(config, loader, level, flat));
  }
  mid_.emplace(loader, "encoder.mid_block");
  head_ = NormedConv(loader, "encoder.norm_out", "encoder.conv_out");
}

at::Tensor WanEncoder::run(Stream& stream, const at::Tensor& frames) const {
  at::Tensor x = conv_in_.run_frames(stream, frames);
  stream.observe("conv_in", x);
  for (const Level& level : levels_) {
    const at::Tensor around = level.shortcut ? level.shortcut->average(x) : at::Tensor();
    for (const ResBlock& block : level.blocks) x = block.run(stream, std::move(x));
    if (level.downsample) x = level.downsample->run(x);
    if (level.halve) x = level.halve->run(stream, x);
    if (around.defined()) x.add_(around);
  }
  x = mid_->run(stream, std::move(x));
  stream.observe("mid_block", x);
  x = head_.run(stream, x);
  stream.next_chunk();
  return x;
}

WanDecoder::Level WanDecoder::make_level(const WanVaeConfig& config, LayerLoader& loader, int64_t level) {
  Level made;
  const std::string place = fmt::format("decoder.up_blocks.{}.", level);
  for (int64_t block = 0; block <= config.num_res_blocks; ++block) {
    made.blocks.emplace_back(loader, fmt::format("{}resnets.{}", place, block));
  }
  if (level == config.num_levels() - 1) return made;
  const bool doubles = config.doubles_frames(level);
  const std::string name = place + (config.is_residual ? "upsampler" : "upsamplers.0");
  if (doubles) made.twice.emplace(loader, name + ".time_conv");
  made.upsample.emplace(loader, name + ".resample.1");
  if (config.is_residual) made.shortcut = LevelShortcut{config.decoder_out(level), doubles ? 2 : 1, 2};
  return made;
}

WanDecoder::WanDecoder(const WanVaeConfig& config, LayerLoader& loader) : conv_in_(loader, "decoder.conv_in") {
  mid_.emplace(loader, "decoder.mid_block");
  for (int64_t level = 0; level < config.num_levels(); ++level) levels_.push_back(make_level(config, loader, level));
  head_ = NormedConv(loader, "decoder.norm_out", "decoder.conv_out");
}

at::Tensor WanDecoder::run(Stream& stream, const at::Tensor& latents) const {
  at::Tensor x = conv_in_.run_frames(stream, latents);
  stream.observe("conv_in", x);
  x = mid_->run(stream, std::move(x));
  stream.observe("mid_block", x);
  for (size_t i = 0; i < levels_.size(); ++i) {
    const Level& level = levels_[i];
    const at::Tensor before = level.shortcut ? x.clone() : at::Tensor();
    for (const ResBlock& block : level.blocks) x = block.run(stream, std::move(x));
    if (level.twice) x = level.twice->run(stream, x);
    if (level.upsample) x = level.upsample->run(x);
    if (before.defined()) x.add_(level.shortcut->repeat(stream, before));
    stream.observe(("up" + std::to_string(i)).c_str(), x);
  }
  x = head_.run(stream, x);
  stream.next_chunk();
  return x;
}

}  // namespace strobe::models
