#include "models/vae/wan_vae_work.h"

#include "core/torch.h"
#include "models/vae/wan_vae.h"

namespace strobe::models {
namespace {

constexpr int64_t kHistoryFrames = 2;
constexpr int64_t kFloatBytes = 4;

// Walks the decoder with the size of the picture in hand. `frames` counts all frames of the clip, the first one alone
// in its chunk.
class Walk {
 public:
  Walk(int64_t frames, int64_t rows, int64_t cols, int64_t chunk)
      : frames_(static_cast<double>(frames)), pixels_(static_cast<double>(rows * cols)), chunk_(chunk) {}

  void begin(std::string name) { work_.levels.push_back({std::move(name), 0, 0}); }

  // Causal 3x3x3 with norm and SiLU before it; the first frame meets two frames of zeros.
  void conv(int64_t in, int64_t out) {
    const double tap = 2 * pixels_ * static_cast<double>(in) * static_cast<double>(out);
    add(tap * 9 * 3 * frames_, tap * 9 * (3 * (frames_ - 1) + 1));
    history_bytes_ += kHistoryFrames * bytes_of(in);
  }
  void pointwise(int64_t in, int64_t out) {
    const double flops = 2 * frames_ * pixels_ * static_cast<double>(in * out);
    add(flops, flops);
  }
  void res_block(int64_t in, int64_t out) {
    conv(in, out);
    conv(out, out);
    if (in != out) pointwise(in, out);
    // Input, the padded copy that the second convolution reads, and the hidden frames.
    peak((chunk_ * (std::max(in, out) + 2 * out) + kHistoryFrames * out) * pixel_count() * kFloatBytes);
  }
  void frame_attention(int64_t width) {
    pointwise(width, 3 * width);
    const double flops = 4 * frames_ * pixels_ * pixels_ * static_cast<double>(width);
    add(flops, flops);
    pointwise(width, width);
    peak(chunk_ * 6 * width * pixel_count() * kFloatBytes);
  }
  void double_frames(int64_t width) {
    const double flops = 2 * 3 * (frames_ - 1) * pixels_ * static_cast<double>(width * 2 * width);
    add(flops, flops);
    history_bytes_ += kHistoryFrames * bytes_of(width);
    // History and frames together, twice the frames, and those in order.
    peak((chunk_ * 5 + kHistoryFrames) * width * pixel_count() * kFloatBytes);
    frames_ = 1 + 2 * (frames_ - 1);
    chunk_ *= 2;
  }
  // 3x3 on the doubled picture; as run, four 2x2 kernels on the small one.
  void upsample(int64_t in, int64_t out) {
    const double product = 2 * frames_ * pixels_ * static_cast<double>(in * out);
    add(product * 4 * 9, product * 4 * 4);
    pixels_ *= 4;
    peak((chunk_ * (2 * out + in / 4)) * pixel_count() * kFloatBytes);
  }
  // The shortcut around a residual level: its input is kept, and repeated over the larger picture.
  void hold(int64_t width) { held_bytes_ = chunk_ * bytes_of(width); }
  void release(int64_t width) {
    if (held_bytes_ > 0) peak(held_bytes_ + 2 * chunk_ * bytes_of(width));
    held_bytes_ = 0;
  }

  DecodeWork finish() {
    work_.activation_bytes = peak_bytes_ + history_bytes_;
    return std::move(work_);
  }

 private:
  int64_t pixel_count() const { return static_cast<int64_t>(pixels_); }
  int64_t bytes_of(int64_t width) const { return width * pixel_count() * kFloatBytes; }
  void add(double flops, double run_flops) {
    work_.levels.back().flops += flops;
    work_.levels.back().run_flops += run_flops;
  }
  void peak(int64_t bytes) { peak_bytes_ = std::max(peak_bytes_, bytes + held_bytes_); }

  DecodeWork work_;
  double frames_, pixels_;
  int64_t chunk_;  // frames of a chunk after the first
  int64_t peak_bytes_ = 0, held_bytes_ = 0, history_bytes_ = 0;
};

}  // namespace

DecodeWork compute_wan_decode_work(const WanVaeConfig& config, int64_t frames, int64_t rows, int64_t cols) {
  const int64_t z = config.latent_channels, levels = config.num_levels();
  const int64_t scale = config.spatial_stride() / config.patch_size;
  const int64_t chunk = wan_vae_chunk_latents(config, rows * scale, cols * scale, config.decoder_out(levels - 1),
                                              /*element_bytes=*/kFloatBytes);
  Walk walk(frames, rows, cols, std::min(chunk, std::max<int64_t>(1, frames - 1)));
  walk.begin("in");
  walk.pointwise(z, z);
  walk.conv(z, config.decoder_in(0));
  walk.begin("mid");
  walk.res_block(config.decoder_in(0), config.decoder_in(0));
  walk.frame_attention(config.decoder_in(0));
  walk.res_block(config.decoder_in(0), config.decoder_in(0));
  for (int64_t level = 0; level < levels; ++level) {
    const int64_t out = config.decoder_out(level);
    const bool is_last = level == levels - 1;
    walk.begin(fmt::format("up{}", level));
    if (config.is_residual && !is_last) walk.hold(config.decoder_in(level));
    for (int64_t block = 0; block <= config.num_res_blocks; ++block) {
      walk.res_block(block == 0 ? config.decoder_in(level) : out, out);
    }
    if (is_last) break;
    if (config.doubles_frames(level)) walk.double_frames(out);
    walk.upsample(out, config.decoder_in(level + 1));
    walk.release(config.decoder_in(level + 1));
  }
  walk.begin("out");
  walk.conv(config.decoder_out(levels - 1), config.out_channels);
  return walk.finish();
}

}  // namespace strobe::models
