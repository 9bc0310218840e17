#include "models/vae/wan_vae.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/torch.h"
#include "models/vae/tile_blend.h"
#include "models/vae/wan_vae_blocks.h"

namespace strobe::models {
namespace {

// Large enough that kernels run at full speed, small enough to keep working memory near one latent frame's.
// (oneDNN also keeps up to 200 MB of generated code for each chunk length that it meets.)
constexpr int64_t kLargestActivationBytes = int64_t{24} << 20;
constexpr int64_t kMaxChunkLatentFrames = 8;

class WanVae final : public Vae {
 public:
  WanVae(const WanVaeConfig& config, LayerLoader encoder, LayerLoader decoder, const WanVaeOptions& options)
      : config_(config),
        options_(options),
        encoder_(config, encoder),
        quant_(encoder, "quant_conv"),
        decoder_(config, decoder),
        post_quant_(decoder, "post_quant_conv"),
        encoder_slots_(encoder.num_slots()),
        decoder_slots_(decoder.num_slots()),
        model_options_(decoder.load("post_quant_conv.bias").options()),
        mean_(at::tensor(config.latents_mean, model_options_.dtype(at::kFloat))),
        std_(at::tensor(config.latents_std, model_options_.dtype(at::kFloat))) {}

  int64_t latent_channels() const override { return config_.latent_channels; }
  int64_t temporal_stride() const override { return config_.temporal_stride(); }
  int64_t spatial_stride() const override { return config_.spatial_stride(); }

  void decode(const at::Tensor& latents, const VaeTiling& tiling, const FrameSink& sink) const override;
  at::Tensor encode(const FrameSource& source, const VaeTiling& tiling) const override;

 private:
  using Chunk = std::function<void(const at::Tensor&)>;

  int64_t chunk_latents(int64_t rows, int64_t cols, int64_t width) const;
  // Normalised latents [C, F, H, W] to what the decoder reads, [F, H, W, C] in the model's dtype.
  at::Tensor unnormalise(const at::Tensor& latents) const;
  // Normalised latents [C, F, H, W], chunk by chunk to patched pixels [n, R, W, 3 p^2].
  void decode_stream(const at::Tensor& latents, const Chunk& sink) const;
  at::Tensor decode_tiled(const at::Tensor& latents, const VaeTiling& tiling) const;
  void emit(const at::Tensor& pixels, const FrameSink& sink) const;

  // Frames to patched pixels; the inverse, with clamping, is `emit`.
  at::Tensor patch(const at::Tensor& frames) const;
  // The next chunk after `Stream` of patched frames; undefined at the end.
  using Pull = std::function<at::Tensor(int64_t count)>;
  at::Tensor encode_stream(const Pull& pull) const;  // [F, H, W, 2 z]
  at::Tensor encode_tiled(const at::Tensor& pixels, const VaeTiling& tiling) const;

  WanVaeConfig config_;
  WanVaeOptions options_;
  WanEncoder encoder_;
  PointwiseConv quant_;
  WanDecoder decoder_;
  PointwiseConv post_quant_;
  size_t encoder_slots_, decoder_slots_;
  at::TensorOptions model_options_;
  at::Tensor mean_, std_;  // [z] float32
};

int64_t WanVae::chunk_latents(int64_t rows, int64_t cols, int64_t width) const {
  if (options_.chunk_latent_frames > 0) return options_.chunk_latent_frames;
  return wan_vae_chunk_latents(config_, rows, cols, width, static_cast<int64_t>(model_options_.dtype().itemsize()));
}

void check_tiling(const VaeTiling& tiling, int64_t stride) {
  if (tiling.stride_px <= 0 || tiling.stride_px > tiling.tile_px || tiling.tile_px % stride ||
      tiling.stride_px % stride) {
    throw ConfigError(
        fmt::format("vae tiling: expected multiples of {} px with 0 < stride <= tile, got tile {} stride {}", stride,
                    tiling.tile_px, tiling.stride_px));
  }
}

at::Tensor WanVae::unnormalise(const at::Tensor& latents) const {
  const at::Tensor z = latents.to(model_options_.dtype(at::kFloat)).permute({1, 2, 3, 0});
  return (z * std_ + mean_).to(model_options_.dtype().toScalarType()).contiguous();
}

void WanVae::decode_stream(const at::Tensor& latents, const Chunk& sink) const {
  Stream stream(decoder_slots_, &options_.probe, "dec.");
  const int64_t scale = spatial_stride() / config_.patch_size;
  const int64_t largest =
      chunk_latents(latents.size(2) * scale, latents.size(3) * scale, config_.decoder_out(config_.num_levels() - 1));
  const auto run = [&](const at::Tensor& part) { return decoder_.run(stream, post_quant_.run(unnormalise(part))); };
  sink(run(latents.narrow(1, 0, 1)));
  const int64_t rest = latents.size(1) - 1;
  if (rest == 0) return;
  // As few chunks as there must be, as even as they can be, and all of one length: the last one is padded behind, which
  // in a causal model changes nothing before.
  const int64_t chunks = (rest + largest - 1) / largest, length = (rest + chunks - 1) / chunks;
  for (int64_t begin = 1; begin <= rest; begin += length) {
    const int64_t count = std::min(length, rest + 1 - begin);
    at::Tensor part = latents.narrow(1, begin, count);
    if (count < length) part = at::cat({part, latents.narrow(1, rest, 1).expand({-1, length - count, -1, -1})}, 1);
    sink(run(part).narrow(0, 0, count * temporal_stride()));
  }
}

at::Tensor WanVae::decode_tiled(const at::Tensor& latents, const VaeTiling& tiling) const {
  const int64_t stride = spatial_stride(), p = config_.patch_size;
  const int64_t tile = tiling.tile_px / stride, step = tiling.stride_px / stride;
  const int64_t rows = latents.size(2), cols = latents.size(3);
  TileBlend blend({.rows = rows * stride / p,
                   .cols = cols * stride / p,
                   .stride = tiling.stride_px / p,
                   .extent = tiling.tile_px / p - tiling.stride_px / p});
  for (int64_t row = 0; row < rows; row += step) {
    for (int64_t col = 0; col < cols; col += step) {
      const at::Tensor part =
          latents.narrow(2, row, std::min(tile, rows - row)).narrow(3, col, std::min(tile, cols - col));
      std::vector<at::Tensor> chunks;
      decode_stream(part, [&](const at::Tensor& pixels) { chunks.push_back(pixels); });
      blend.add(at::cat(chunks));
    }
  }
  return blend.result();
}

void WanVae::emit(const at::Tensor& pixels, const FrameSink& sink) const {
  const int64_t count = pixels.size(0), rows = pixels.size(1), cols = pixels.size(2), p = config_.patch_size;
  // Patched channels are ordered (colour, column offset, row offset).
  const at::Tensor frames =
      pixels.view({count, rows, cols, 3, p, p}).permute({3, 0, 1, 5, 2, 4}).reshape({3, count, rows * p, cols * p});
  // A sink may keep what it gets, so the clamp must not write into memory shared with the stream.
  sink(frames.to(at::kFloat).clamp(-1.0, 1.0).contiguous());
}

void WanVae::decode(const at::Tensor& latents, const VaeTiling& tiling, const FrameSink& sink) const {
  STROBE_CHECK(latents.dim() == 4 && latents.size(0) == latent_channels() && latents.numel() > 0,
               "decode: expected latents [{}, F, H, W], got [{}]", latent_channels(), fmt::join(latents.sizes(), ", "));
  const at::NoGradGuard no_grad;
  if (tiling.is_enabled) check_tiling(tiling, spatial_stride());
  const int64_t tile = tiling.tile_px / spatial_stride();
  if (!tiling.is_enabled || (latents.size(2) <= tile && latents.size(3) <= tile)) {
    decode_stream(latents, [&](const at::Tensor& pixels) { emit(pixels, sink); });
    return;
  }
  const at::Tensor whole = decode_tiled(latents, tiling);
  emit(whole.narrow(0, 0, 1), sink);
  for (int64_t begin = 1; begin < whole.size(0); begin += temporal_stride()) {
    emit(whole.narrow(0, begin, temporal_stride()), sink);
  }
}

at::Tensor WanVae::patch(const at::Tensor& frames) const {
  const int64_t p = config_.patch_size, count = frames.size(1), rows = frames.size(2) / p, cols = frames.size(3) / p;
  return frames.to(model_options_)
      .reshape({3, count, rows, p, cols, p})
      .permute({1, 2, 4, 0, 5, 3})
      .reshape({count, rows, cols, 3 * p * p})
      .contiguous();
}

at::Tensor WanVae::encode_stream(const Pull& pull) const {
  Stream stream(encoder_slots_, &options_.probe, "enc.");
  at::Tensor chunk = pull(1);
  STROBE_CHECK(chunk.defined(), "encode: the source gave no frames");
  std::vector<at::Tensor> latents;
  const int64_t step = temporal_stride() * chunk_latents(chunk.size(1), chunk.size(2), config_.base_width);
  while (chunk.defined()) {
    latents.push_back(quant_.run(encoder_.run(stream, chunk)));
    chunk = pull(step);
    const int64_t whole = chunk.defined() ? chunk.size(0) / temporal_stride() * temporal_stride() : 0;
    chunk = whole ? chunk.narrow(0, 0, whole) : at::Tensor();
  }
  return at::cat(latents);
}

at::Tensor WanVae::encode_tiled(const at::Tensor& pixels, const VaeTiling& tiling) const {
  const int64_t scale = spatial_stride() / config_.patch_size;
  const int64_t rows = pixels.size(1), cols = pixels.size(2);
  TileBlend blend({.rows = rows / scale,
                   .cols = cols / scale,
                   .stride = tiling.stride_px / scale,
                   .extent = tiling.tile_px / scale - tiling.stride_px / scale});
  for (int64_t row = 0; row < rows; row += tiling.stride_px) {
    for (int64_t col = 0; col < cols; col += tiling.stride_px) {
      const at::Tensor part = pixels.narrow(1, row, std::min(tiling.tile_px, rows - row))
                                  .narrow(2, col, std::min(tiling.tile_px, cols - col));
      int64_t begin = 0;
      blend.add(encode_stream([&](int64_t count) {
        count = std::min(count, part.size(0) - begin);
        begin += count;
        return count > 0 ? part.narrow(0, begin - count, count).contiguous() : at::Tensor();
      }));
    }
  }
  return blend.result();
}

at::Tensor WanVae::encode(const FrameSource& source, const VaeTiling& tiling) const {
  const at::NoGradGuard no_grad;
  if (tiling.is_enabled) check_tiling(tiling, spatial_stride());
  int64_t height = 0, width = 0;
  // A source may give fewer frames than asked for before its end.
  const Pull pull = [&](int64_t count) {
    std::vector<at::Tensor> parts;
    while (count > 0) {
      const at::Tensor frames = source(count);
      if (!frames.defined() || frames.numel() == 0) break;
      STROBE_CHECK(frames.dim() == 4 && frames.size(0) == 3 && frames.size(1) <= count,
                   "encode: expected frames [3, at most {}, height, width], got [{}]", count,
                   fmt::join(frames.sizes(), ", "));
      STROBE_CHECK(frames.size(2) % spatial_stride() == 0 && frames.size(3) % spatial_stride() == 0,
                   "encode: expected height and width in multiples of {}, got {} x {}", spatial_stride(),
                   frames.size(2), frames.size(3));
      STROBE_CHECK(height == 0 || (frames.size(2) == height && frames.size(3) == width),
                   "encode: frames change size from {} x {} to {} x {}", height, width, frames.size(2), frames.size(3));
      height = frames.size(2), width = frames.size(3);
      parts.push_back(patch(frames));
      count -= frames.size(1);
    }
    return parts.empty() ? at::Tensor() : parts.size() == 1 ? parts[0] : at::cat(parts);
  };
  at::Tensor moments;
  if (tiling.is_enabled) {
    std::vector<at::Tensor> clip;
    // Whether tiles are needed shows with the first frame; a small clip is gathered all the same, which costs little.
    for (at::Tensor part = pull(1); part.defined(); part = pull(temporal_stride())) clip.push_back(std::move(part));
    STROBE_CHECK(!clip.empty(), "encode: the source gave no frames");
    VaeTiling used = tiling;
    // Larger than any clip: one tile, so nothing is blended.
    if (height <= tiling.tile_px && width <= tiling.tile_px) used.tile_px = used.stride_px = std::max(height, width);
    moments = encode_tiled(at::cat(clip), used);
  } else {
    moments = encode_stream(pull);
  }
  const at::Tensor mean = moments.narrow(3, 0, latent_channels()).to(at::kFloat);
  return ((mean - mean_) / std_).permute({3, 0, 1, 2}).contiguous();
}

}  // namespace

int64_t wan_vae_chunk_latents(const WanVaeConfig& config, int64_t rows, int64_t cols, int64_t width,
                              int64_t element_bytes) {
  const int64_t bytes = config.temporal_stride() * rows * cols * width * element_bytes;
  return std::clamp<int64_t>(kLargestActivationBytes / std::max<int64_t>(bytes, 1), 1, kMaxChunkLatentFrames);
}

std::unique_ptr<Vae> make_wan_vae(const WanVaeConfig& config, const weights::WeightStore& store, at::ScalarType dtype,
                                  at::Device device, const WanVaeOptions& options) {
  config.validate();
  STROBE_CHECK(options.chunk_latent_frames >= 0, "make_wan_vae: chunk_latent_frames is {}",
               options.chunk_latent_frames);
  const at::NoGradGuard no_grad;
  const LayerLoader loader(store, dtype, device);
  return std::make_unique<WanVae>(config, loader, loader, options);
}

}  // namespace strobe::models
