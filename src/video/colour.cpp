#include "video/colour.h"

#include "core/error.h"
#include "core/torch.h"

extern "C" {
#include <libavutil/opt.h>
}

namespace strobe::video {
namespace {

constexpr int kFlags = SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_BITEXACT;

// swscale's positions of chroma, in 1/256 of a luma sample.
constexpr int kCentred = 128;
constexpr int kOnSample = 0;

int matrix_of(AVColorSpace colorspace, int width, int height) {
  if (colorspace == AVCOL_SPC_UNSPECIFIED || colorspace == AVCOL_SPC_RESERVED) {
    colorspace = assumed_colorspace(width, height);
  }
  switch (colorspace) {
    case AVCOL_SPC_BT709:
      return SWS_CS_ITU709;
    case AVCOL_SPC_FCC:
      return SWS_CS_FCC;
    case AVCOL_SPC_SMPTE240M:
      return SWS_CS_SMPTE240M;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
      return SWS_CS_BT2020;
    default:
      return SWS_CS_ITU601;
  }
}

bool is_full_range_format(int format) {
  return format == AV_PIX_FMT_YUVJ420P || format == AV_PIX_FMT_YUVJ422P || format == AV_PIX_FMT_YUVJ444P ||
         format == AV_PIX_FMT_YUVJ440P || format == AV_PIX_FMT_YUVJ411P;
}

void set_chroma_position(SwsContext* context, AVPixelFormat format, int chroma, const std::string& side) {
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(format);
  if (is_rgb_format(format) || description->nb_components < 3) return;
  const bool is_centred = chroma == AVCHROMA_LOC_CENTER || chroma == AVCHROMA_LOC_TOP;
  const bool is_top = chroma == AVCHROMA_LOC_TOPLEFT || chroma == AVCHROMA_LOC_TOP;
  if (description->log2_chroma_w == 1) {
    av_opt_set_int(context, (side + "_h_chr_pos").c_str(), is_centred ? kCentred : kOnSample, 0);
  }
  if (description->log2_chroma_h == 1) {
    av_opt_set_int(context, (side + "_v_chr_pos").c_str(), is_top ? kOnSample : kCentred, 0);
  }
}

}  // namespace

bool is_rgb_format(AVPixelFormat format) {
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(format);
  return description && (description->flags & AV_PIX_FMT_FLAG_RGB);
}

AVColorSpace assumed_colorspace(int width, int height) {
  return height >= 720 || width >= 1280 ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
}

void ColourConverter::prepare(const Key& key) {
  if (context_ && key == key_) return;
  context_.reset(sws_alloc_context());
  SwsContext* context = context_.get();
  if (!context) throw IoError("sws_alloc_context: " + av_error_text(AVERROR(ENOMEM)));
  const auto source = static_cast<AVPixelFormat>(key.source_format);
  const auto target = static_cast<AVPixelFormat>(key.target_format);
  for (const auto& [name, value] : {std::pair<const char*, int>{"srcw", key.width},
                                    {"srch", key.height},
                                    {"dstw", key.width},
                                    {"dsth", key.height},
                                    {"src_format", key.source_format},
                                    {"dst_format", key.target_format},
                                    {"sws_flags", kFlags}}) {
    check_av_io(av_opt_set_int(context, name, value, 0), "swscale option");
  }
  set_chroma_position(context, source, key.chroma, "src");
  set_chroma_position(context, target, key.chroma, "dst");
  if (!(is_rgb_format(source) && is_rgb_format(target))) {
    const int* matrix = sws_getCoefficients(key.matrix);
    const int source_range = is_rgb_format(source) ? 1 : key.is_full_range;
    const int target_range = is_rgb_format(target) ? 1 : key.is_full_range;
    sws_setColorspaceDetails(context, matrix, source_range, matrix, target_range, 0, 1 << 16, 1 << 16);
  }
  if (const int code = sws_init_context(context, nullptr, nullptr); code < 0) {
    context_.reset();
    throw UnsupportedError(fmt::format("cannot convert pixel format {} to {}: {}", av_get_pix_fmt_name(source),
                                       av_get_pix_fmt_name(target), av_error_text(code)));
  }
  key_ = key;
}

void ColourConverter::run(const AVFrame& source, AVFrame& target) {
  const int rows =
      sws_scale(context_.get(), source.data, source.linesize, 0, source.height, target.data, target.linesize);
  check_av_io(rows == target.height ? 0 : AVERROR(EINVAL), "sws_scale");
}

void ColourConverter::from_rgb(const AVFrame& source, AVFrame& target) {
  prepare({source.format, target.format, target.width, target.height,
           matrix_of(target.colorspace, target.width, target.height), target.color_range == AVCOL_RANGE_JPEG,
           target.chroma_location});
  run(source, target);
}

void ColourConverter::to_rgb(const AVFrame& source, AVFrame& target) {
  const bool is_full = source.color_range == AVCOL_RANGE_JPEG || is_full_range_format(source.format);
  prepare({source.format, target.format, source.width, source.height,
           matrix_of(source.colorspace, source.width, source.height), is_full, source.chroma_location});
  run(source, target);
}

}  // namespace strobe::video
