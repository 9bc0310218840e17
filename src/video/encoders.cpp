#include "video/encoders.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/torch.h"
#include "video/colour.h"

extern "C" {
#include <libavutil/opt.h>
}

namespace strobe::video {
namespace {

struct Container {
  const char* extension;
  const char* muxer;
  const char* codec;
  bool has_colour_tags;
};
constexpr std::array<Container, 4> kContainers = {{{".mp4", "mp4", "h264", true},
                                                   {".mkv", "matroska", "h264", true},
                                                   {".webm", "webm", "vp9", true},
                                                   {".avi", "avi", "mpeg4", false}}};

// The encoders that a family's name may mean, best first.
struct Family {
  const char* name;
  std::array<const char*, 2> encoders;
};
constexpr std::array<Family, 7> kFamilies = {{{"h264", {"libx264", "libopenh264"}},
                                              {"hevc", {"libx265", nullptr}},
                                              {"vp9", {"libvpx-vp9", nullptr}},
                                              {"vp8", {"libvpx", nullptr}},
                                              {"av1", {"libsvtav1", "libaom-av1"}},
                                              {"ffv1", {"ffv1", nullptr}},
                                              {"mpeg4", {"mpeg4", nullptr}}}};

// The quantiser range is the codec's; the option itself often has no upper bound.
struct CrfRange {
  AVCodecID codec;
  int usual;
  int largest;
};
constexpr std::array<CrfRange, 5> kCrfRanges = {{{AV_CODEC_ID_H264, 18, 51},
                                                 {AV_CODEC_ID_HEVC, 20, 51},
                                                 {AV_CODEC_ID_VP9, 30, 63},
                                                 {AV_CODEC_ID_VP8, 10, 63},
                                                 {AV_CODEC_ID_AV1, 30, 63}}};

constexpr int kMpeg4Quantiser = 3;
// FFmpeg's FFV1 loses the pixels of one-pixel slices, and makes at least four slices unless told otherwise.
constexpr int kSmallestSliced = 64;
constexpr int kSmallestFfv1 = 2;
constexpr int kHardware = AV_CODEC_CAP_HARDWARE | AV_CODEC_CAP_HYBRID;

const Container& container_of(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Container& container : kContainers) {
    if (extension == container.extension) return container;
  }
  throw ConfigError(
      fmt::format("output '{}': unknown extension '{}'; known: .mp4, .mkv, .webm, .avi, .png, or a folder's name "
                  "ending in '/' for PNG frames",
                  path.string(), path.extension().string()));
}

const AVOutputFormat* muxer_of(const Container& container) {
  quiet_ffmpeg();
  const AVOutputFormat* muxer = av_guess_format(container.muxer, nullptr, nullptr);
  if (!muxer) throw UnsupportedError(fmt::format("this FFmpeg has no '{}' muxer", container.muxer));
  return muxer;
}

bool fits(const AVOutputFormat* muxer, const AVCodec* codec) {
  return avformat_query_codec(muxer, codec->id, FF_COMPLIANCE_NORMAL) == 1;
}

bool has_format(const AVCodec* codec, AVPixelFormat format) {
  if (!codec->pix_fmts) return sws_isSupportedOutput(format);
  for (const AVPixelFormat* known = codec->pix_fmts; *known != AV_PIX_FMT_NONE; ++known) {
    if (*known == format) return sws_isSupportedOutput(format);
  }
  return false;
}

std::string format_list(const AVCodec* codec) {
  if (!codec->pix_fmts) return "any";
  std::vector<std::string> names;
  for (const AVPixelFormat* known = codec->pix_fmts; *known != AV_PIX_FMT_NONE; ++known) {
    if (sws_isSupportedOutput(*known)) names.emplace_back(av_get_pix_fmt_name(*known));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

const AVCodec* find_codec(const std::string& name) {
  for (const Family& family : kFamilies) {
    if (name != family.name) continue;
    for (const char* encoder : family.encoders) {
      if (const AVCodec* codec = encoder ? avcodec_find_encoder_by_name(encoder) : nullptr) return codec;
    }
    return nullptr;
  }
  const AVCodec* codec = avcodec_find_encoder_by_name(name.c_str());
  return codec && codec->type == AVMEDIA_TYPE_VIDEO ? codec : nullptr;
}

bool is_lossless_codec(AVCodecID id) {
  const AVCodecDescriptor* description = avcodec_descriptor_get(id);
  return description && (description->props & AV_CODEC_PROP_LOSSLESS) && !(description->props & AV_CODEC_PROP_LOSSY);
}

const AVCodec* choose_codec(const std::filesystem::path& path, const Container& container,
                            const VideoOptions& options) {
  const AVOutputFormat* muxer = muxer_of(container);
  const std::string name = !options.codec.empty() ? options.codec : options.is_lossless ? "ffv1" : container.codec;
  const AVCodec* codec = find_codec(name);
  const auto candidates = [&] { return fmt::format("{}", fmt::join(available_encoders(path), ", ")); };
  if (!codec) {
    throw UnsupportedError(fmt::format("output '{}': this FFmpeg ({}) has no encoder '{}'; for {} it has: {}",
                                       path.string(), ffmpeg_version(), name, container.extension, candidates()));
  }
  if (options.is_lossless && options.codec.empty() && !fits(muxer, codec)) {
    throw ConfigError(
        fmt::format("output '{}': lossless video is FFV1, which {} files cannot hold; use .mkv or .avi, "
                    "or PNG frames",
                    path.string(), container.extension));
  }
  if (!fits(muxer, codec)) {
    throw UnsupportedError(fmt::format("output '{}': {} files cannot hold {} ({}); encoders for it here: {}",
                                       path.string(), container.extension, name, avcodec_get_name(codec->id),
                                       candidates()));
  }
  if (options.is_lossless && !is_lossless_codec(codec->id)) {
    throw ConfigError(fmt::format("codec '{}' is not a lossless one; drop --lossless or use --codec ffv1", name));
  }
  return codec;
}

AVPixelFormat choose_format(const AVCodec* codec, const VideoOptions& options) {
  if (!options.pix_fmt.empty()) {
    const AVPixelFormat format = av_get_pix_fmt(options.pix_fmt.c_str());
    if (format != AV_PIX_FMT_NONE && has_format(codec, format)) return format;
    throw UnsupportedError(fmt::format("pixel format '{}': {} does not take it; it takes: {}", options.pix_fmt,
                                       codec->name, format_list(codec)));
  }
  std::vector<AVPixelFormat> usual = {AV_PIX_FMT_YUV420P, AV_PIX_FMT_YUV444P};
  if (options.is_lossless || codec->id == AV_CODEC_ID_FFV1) {
    usual = {AV_PIX_FMT_BGR0, AV_PIX_FMT_GBRP, AV_PIX_FMT_RGB24, AV_PIX_FMT_BGR24, AV_PIX_FMT_BGRA, AV_PIX_FMT_RGBA};
  }
  for (AVPixelFormat format : usual) {
    if (has_format(codec, format)) return format;
  }
  const AVPixelFormat best = codec->pix_fmts
                                 ? avcodec_find_best_pix_fmt_of_list(codec->pix_fmts, AV_PIX_FMT_RGB24, 0, nullptr)
                                 : AV_PIX_FMT_NONE;
  if (best == AV_PIX_FMT_NONE || !sws_isSupportedOutput(best)) {
    throw UnsupportedError(
        fmt::format("encoder '{}' takes no pixel format that RGB frames can be converted to", codec->name));
  }
  return best;
}

void check_size(const AVCodec* codec, AVPixelFormat format, const VideoOptions& options) {
  if (codec->id == AV_CODEC_ID_FFV1 && std::min(options.width, options.height) < kSmallestFfv1) {
    throw ConfigError(fmt::format("size {}x{}: ffv1 needs at least {} pixels each way; use PNG frames", options.width,
                                  options.height, kSmallestFfv1));
  }
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(format);
  const int64_t columns = int64_t{1} << description->log2_chroma_w, rows = int64_t{1} << description->log2_chroma_h;
  if (is_rgb_format(format) || (options.width % columns == 0 && options.height % rows == 0)) return;
  const char* remedy = has_format(codec, AV_PIX_FMT_YUV444P) ? "use --pix-fmt yuv444p or an even size"
                       : has_format(codec, AV_PIX_FMT_BGR0)  ? "use --pix-fmt bgr0 or an even size"
                                                             : "use an even size";
  throw ConfigError(
      fmt::format("size {}x{}: {} needs a width that is a multiple of {} and a height that is a multiple "
                  "of {}; {}",
                  options.width, options.height, description->name, columns, rows, remedy));
}

bool has_option(const AVCodec* codec, const char* name) {
  return codec->priv_class &&
         av_opt_find(const_cast<AVClass**>(&codec->priv_class), name, nullptr, 0, AV_OPT_SEARCH_FAKE_OBJ);
}

int choose_crf(const AVCodec* codec, const VideoOptions& options) {
  const auto* range =
      std::find_if(kCrfRanges.begin(), kCrfRanges.end(), [&](const CrfRange& row) { return row.codec == codec->id; });
  const bool has_crf = range != kCrfRanges.end() && has_option(codec, "crf");
  if (options.crf < 0) return has_crf ? range->usual : -1;
  if (!has_crf) {
    throw ConfigError(fmt::format("crf {}: {} has no constant rate factor; leave --crf out", options.crf, codec->name));
  }
  if (options.crf > range->largest) {
    throw ConfigError(fmt::format("crf: expected 0 to {} for {}, got {}", range->largest, codec->name, options.crf));
  }
  return options.crf;
}

void set_codec_options(const EncoderPlan& plan, AVCodecContext& context, AvDictionary& dictionary) {
  const std::string name = plan.codec->name;
  if (plan.crf >= 0) dictionary.set("crf", std::to_string(plan.crf));
  if (name == "libx264" || name == "libx264rgb" || name == "libx265") dictionary.set("preset", "medium");
  if (name == "libx265") dictionary.set("x265-params", "log-level=none");
  if (name == "libvpx-vp9" || name == "libvpx" || name == "libaom-av1") {
    // A bit rate of 0 makes crf the only bound.
    context.bit_rate = name == "libvpx" ? 100'000'000 : 0;
    dictionary.set("cpu-used", "4");
    if (name != "libvpx") dictionary.set("row-mt", "1");
  }
  if (name == "ffv1") {
    // Every frame stands alone and carries checksums.
    context.level = 3;
    context.gop_size = 1;
    if (context.width < kSmallestSliced || context.height < kSmallestSliced) context.slices = 1;
    dictionary.set("slicecrc", "1");
  }
  if (name == "mpeg4") {
    context.flags |= AV_CODEC_FLAG_QSCALE;
    context.global_quality = FF_QP2LAMBDA * kMpeg4Quantiser;
  }
}

}  // namespace

std::string ffmpeg_version() { return av_version_info(); }

std::vector<std::string> available_encoders(const std::filesystem::path& path) {
  const AVOutputFormat* muxer = muxer_of(container_of(path));
  std::vector<std::string> names;
  void* position = nullptr;
  while (const AVCodec* codec = av_codec_iterate(&position)) {
    if (!av_codec_is_encoder(codec) || codec->type != AVMEDIA_TYPE_VIDEO) continue;
    if ((codec->capabilities & (kHardware | AV_CODEC_CAP_EXPERIMENTAL)) || !fits(muxer, codec)) continue;
    names.emplace_back(codec->name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

EncoderPlan plan_encoder(const std::filesystem::path& path, const VideoOptions& options) {
  const Container& container = container_of(path);
  EncoderPlan plan;
  plan.container = muxer_of(container);
  plan.codec = choose_codec(path, container, options);
  plan.pix_fmt = choose_format(plan.codec, options);
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(plan.pix_fmt);
  const bool is_rgb = is_rgb_format(plan.pix_fmt);
  if (options.is_lossless && (!is_rgb || description->comp[0].depth < 8)) {
    throw ConfigError(
        fmt::format("pixel format '{}' does not keep RGB frames exactly; with --lossless use bgr0 or gbrp "
                    "(or leave --pix-fmt out)",
                    description->name));
  }
  check_size(plan.codec, plan.pix_fmt, options);
  plan.crf = choose_crf(plan.codec, options);
  const AVCodecID id = plan.codec->id;
  const bool has_tags = container.has_colour_tags || id == AV_CODEC_ID_H264 || id == AV_CODEC_ID_HEVC ||
                        id == AV_CODEC_ID_VP9 || id == AV_CODEC_ID_AV1;
  // Where no tag can be written, the matrix is the one that readers assume.
  plan.colorspace = is_rgb     ? AVCOL_SPC_RGB
                    : has_tags ? AVCOL_SPC_BT709
                               : assumed_colorspace(static_cast<int>(options.width), static_cast<int>(options.height));
  plan.description = fmt::format("{} {}", plan.codec->name, description->name);
  if (plan.crf >= 0) plan.description += fmt::format(" crf {}", plan.crf);
  return plan;
}

AvPtr<AVCodecContext> open_encoder(const EncoderPlan& plan, const VideoOptions& options) {
  AvPtr<AVCodecContext> context(avcodec_alloc_context3(plan.codec));
  if (!context) throw IoError("avcodec_alloc_context3: " + av_error_text(AVERROR(ENOMEM)));
  context->width = static_cast<int>(options.width);
  context->height = static_cast<int>(options.height);
  context->pix_fmt = plan.pix_fmt;
  context->framerate = {static_cast<int>(options.fps.numerator), static_cast<int>(options.fps.denominator)};
  context->time_base = av_inv_q(context->framerate);
  context->sample_aspect_ratio = {1, 1};
  context->color_primaries = AVCOL_PRI_BT709;
  context->color_trc = AVCOL_TRC_BT709;
  context->colorspace = plan.colorspace;
  context->color_range = plan.colorspace == AVCOL_SPC_RGB ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(plan.pix_fmt);
  if (description->log2_chroma_w == 1) context->chroma_sample_location = AVCHROMA_LOC_LEFT;
  context->thread_count = options.threads;
  if (plan.container->flags & AVFMT_GLOBALHEADER) context->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  AvDictionary dictionary;
  set_codec_options(plan, *context, dictionary);
  take_log();
  if (const int code = avcodec_open2(context.get(), plan.codec, dictionary.get()); code < 0) {
    throw UnsupportedError(fmt::format("encoder {} refuses {}x{} at {}/{} fps: {}", plan.description, options.width,
                                       options.height, options.fps.numerator, options.fps.denominator,
                                       av_error_text(code)));
  }
  if (const std::string key = dictionary.first_key(); !key.empty()) {
    throw UnsupportedError(fmt::format("encoder {} has no option '{}' in this FFmpeg", plan.description, key));
  }
  return context;
}

}  // namespace strobe::video
