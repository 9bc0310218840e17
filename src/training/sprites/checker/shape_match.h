// Which of the six shapes a soft mask is, and at which angle: overlap with templates of equal area.
#pragma once

#include <array>

#include "training/sprites/checker/object_track.h"

namespace strobe::training::sprites {

struct ShapeMatch {
  double overlap_ratio = 0;  // sum of minima / sum of maxima, at the best angle
  double angle = 0;          // radians, within one period of the symmetry
};

// By shape, in the order of the enum.
std::array<ShapeMatch, kNumShapes> match_shapes(const Blob& blob);

}  // namespace strobe::training::sprites
