// The six shapes as signed distances, in units of the radius r: negative inside, x right, y down, a vertex up at angle 0.
//
// Circle    |p| - 1.                     Ring      ||p| - 0.84| - 0.26.
// Square    max(|x|, |y|) - 0.88.        Cross     union of boxes of half sizes 1.12 x 0.38 and 0.38 x 1.12.
// Triangle  three half planes at apothem 0.66.
// Star      five-fold wedge: the line from the outer vertex at 1.36 to the inner one at 0.56, 36 degrees on.
// Exact at edges; behind corners a distance to the lines, not to the corner, which keeps corners sharp.
#pragma once

#include <algorithm>
#include <cmath>

#include "training/sprites/attributes.h"

namespace strobe::training::sprites {

// Area of the shape at r = 1.
double unit_area(Shape shape);
// The largest distance from its centre that the shape reaches at r = 1.
double unit_reach(Shape shape);
// Turning by this angle changes nothing; 0 for circle and ring.
double symmetry_period(Shape shape);

inline float star_distance(float x, float y) {
  constexpr float kCos36 = 0.80901699F, kSin36 = 0.58778525F;
  // Normal of the line between the vertices (1.36, 0) and 0.56 (cos 36, sin 36), along and across the wedge's axis.
  constexpr float kAlong = 0.34115674F, kAcross = 0.94000642F;
  // Reflections into the wedge around the upper vertex.
  x = std::fabs(x);
  float up = -y;
  float outside = 2 * std::max(kCos36 * x - kSin36 * up, 0.0F);
  x -= outside * kCos36;
  up += outside * kSin36;
  outside = 2 * std::max(-kCos36 * x - kSin36 * up, 0.0F);
  x += outside * kCos36;
  up += outside * kSin36;
  x = std::fabs(x);
  return (up - 1.36F) * kAlong + x * kAcross;
}

template <Shape kShape>
inline float signed_distance(float x, float y) {
  if constexpr (kShape == Shape::kCircle) {
    return std::sqrt(x * x + y * y) - 1.0F;
  } else if constexpr (kShape == Shape::kRing) {
    return std::fabs(std::sqrt(x * x + y * y) - 0.84F) - 0.26F;
  } else if constexpr (kShape == Shape::kSquare) {
    return std::max(std::fabs(x), std::fabs(y)) - 0.88F;
  } else if constexpr (kShape == Shape::kCross) {
    const float across = std::fabs(x), along = std::fabs(y);
    return std::min(std::max(across - 1.12F, along - 0.38F), std::max(across - 0.38F, along - 1.12F));
  } else if constexpr (kShape == Shape::kTriangle) {
    return std::max(y, 0.86602540F * std::fabs(x) - 0.5F * y) - 0.66F;
  } else {
    return star_distance(x, y);
  }
}

// Calls `body` with the shape as a constant: body.template operator()<Shape::kRing>().
template <class Body>
void with_shape(Shape shape, const Body& body) {
  switch (shape) {
    case Shape::kCircle:
      return body.template operator()<Shape::kCircle>();
    case Shape::kRing:
      return body.template operator()<Shape::kRing>();
    case Shape::kSquare:
      return body.template operator()<Shape::kSquare>();
    case Shape::kCross:
      return body.template operator()<Shape::kCross>();
    case Shape::kTriangle:
      return body.template operator()<Shape::kTriangle>();
    case Shape::kStar:
      return body.template operator()<Shape::kStar>();
  }
}

}  // namespace strobe::training::sprites
