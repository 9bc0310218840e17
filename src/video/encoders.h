// Which encoder, pixel format and quality a request means, decided before any file exists.
//
// Explicit values are taken exactly or refused; only what was left empty is chosen here.
#pragma once

#include <filesystem>
#include <string>

#include "video/av.h"
#include "video/video_writer.h"

namespace strobe::video {

struct EncoderPlan {
  const AVOutputFormat* container = nullptr;
  const AVCodec* codec = nullptr;
  AVPixelFormat pix_fmt = AV_PIX_FMT_NONE;
  AVColorSpace colorspace = AVCOL_SPC_BT709;
  int crf = -1;             // -1: the encoder has none
  std::string description;  // "libx264 yuv420p crf 18"
};

// ConfigError, UnsupportedError as in video_writer.h.
EncoderPlan plan_encoder(const std::filesystem::path& path, const VideoOptions& options);

// Opens the encoder; UnsupportedError with FFmpeg's words if it refuses.
AvPtr<AVCodecContext> open_encoder(const EncoderPlan& plan, const VideoOptions& options);

}  // namespace strobe::video
