// Objects of a clip, frame by frame: where they are, how large, of which colour (checker.h says by which rules).
#pragma once

#include <array>
#include <opencv2/core.hpp>
#include <vector>

#include "training/sprites/checker/checker.h"

namespace strobe::training::sprites {

// One object in one frame; px, pixel middles at whole numbers.
struct Blob {
  int64_t frame = 0;
  cv::Mat soft;         // float32 0..1, the whole frame
  double area = 0;      // sum of the soft mask
  double x = 0, y = 0;  // its centroid
  Rgb colour = {};      // median where the mask is above .9
  bool is_at_border = false;
};

using Track = std::vector<Blob>;  // in order of frames, at most one a frame

// At most `max_objects` (1 or 2) tracks that are in 80 % of the frames, the one of the larger median area first.
std::vector<Track> find_tracks(const ClipPixels& clip, int max_objects);

float median(std::vector<float> values);  // the upper one of an even number; 0 of none

}  // namespace strobe::training::sprites
