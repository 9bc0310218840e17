// Conversion between our full-range RGB and a video's pixel format, matrix and range.
//
// An unspecified matrix is read as players do: BT.709 from 720 rows or 1280 columns on, else BT.601; an unspecified
// range is limited. Chroma sits left of centre unless the frame says otherwise.
#pragma once

#include "video/av.h"

namespace strobe::video {

// Keeps the swscale context of the last format it saw.
class ColourConverter {
 public:
  // `source` RGB24 to `target`, whose format, colorspace and color_range are set.
  void from_rgb(const AVFrame& source, AVFrame& target);
  // `source` as decoded to `target` RGB24 of the same size.
  void to_rgb(const AVFrame& source, AVFrame& target);

 private:
  struct Key {
    int source_format = -1, target_format = -1, width = 0, height = 0, matrix = -1, is_full_range = -1, chroma = -1;
    bool operator==(const Key&) const = default;
  };
  void prepare(const Key& key);
  void run(const AVFrame& source, AVFrame& target);

  Key key_;
  AvPtr<SwsContext> context_;
};

bool is_rgb_format(AVPixelFormat format);

// The matrix that a reader assumes for a stream without colour tags.
AVColorSpace assumed_colorspace(int width, int height);

}  // namespace strobe::video
