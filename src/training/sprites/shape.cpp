#include "training/sprites/shape.h"

#include <numbers>

namespace strobe::training::sprites {
namespace {

constexpr double kPi = std::numbers::pi;

}  // namespace

double unit_area(Shape shape) {
  switch (shape) {
    case Shape::kCircle:
      return kPi;
    case Shape::kRing:
      return kPi * (1.10 * 1.10 - 0.58 * 0.58);
    case Shape::kSquare:
      return 1.76 * 1.76;
    case Shape::kCross:
      return 2 * 2.24 * 0.76 - 0.76 * 0.76;
    case Shape::kTriangle:
      return 3 * std::sqrt(3.0) * 0.66 * 0.66;
    case Shape::kStar:
      return 5 * 1.36 * 0.56 * std::sin(kPi / 5);
  }
  return 0;
}

double unit_reach(Shape shape) {
  switch (shape) {
    case Shape::kCircle:
      return 1;
    case Shape::kRing:
      return 1.10;
    case Shape::kSquare:
      return 0.88 * std::numbers::sqrt2;
    case Shape::kCross:
      return std::hypot(1.12, 0.38);
    case Shape::kTriangle:
      return 1.32;
    case Shape::kStar:
      return 1.36;
  }
  return 0;
}

double symmetry_period(Shape shape) {
  switch (shape) {
    case Shape::kCircle:
    case Shape::kRing:
      return 0;
    case Shape::kSquare:
    case Shape::kCross:
      return kPi / 2;
    case Shape::kTriangle:
      return 2 * kPi / 3;
    case Shape::kStar:
      return 2 * kPi / 5;
  }
  return 0;
}

}  // namespace strobe::training::sprites
