#include "training/sprites/checker/shape_match.h"

#include <cmath>
#include <opencv2/imgproc.hpp>

#include "training/sprites/shape.h"

namespace strobe::training::sprites {
namespace {

constexpr int kPatch = 32;
constexpr double kPatchArea = 260;
constexpr int kAngles = 16;
// Patches are sampled this much finer and averaged.
constexpr int kOversampling = 2;

struct Template {
  double angle = 0;
  std::vector<float> coverage;  // [kPatch, kPatch]
};

Template make_template(Shape shape, double angle) {
  Template made{.angle = angle, .coverage = {}};
  const double radius = std::sqrt(kPatchArea / unit_area(shape));
  const double cosine = std::cos(angle) / radius, sine = std::sin(angle) / radius;
  constexpr double kMiddle = (kPatch - 1) / 2.0;
  with_shape(shape, [&]<Shape kShape>() {
    for (int row = 0; row < kPatch; ++row) {
      for (int column = 0; column < kPatch; ++column) {
        const double x = column - kMiddle, y = row - kMiddle;
        const float distance = signed_distance<kShape>(static_cast<float>(cosine * x + sine * y),
                                                       static_cast<float>(cosine * y - sine * x));
        made.coverage.push_back(std::clamp(0.5F - distance * static_cast<float>(radius), 0.0F, 1.0F));
      }
    }
  });
  return made;
}

const std::vector<Template>& templates_of(Shape shape) {
  static const std::array<std::vector<Template>, kNumShapes> all = [] {
    std::array<std::vector<Template>, kNumShapes> made;
    for (int i = 0; i < kNumShapes; ++i) {
      const double period = symmetry_period(static_cast<Shape>(i));
      for (int k = 0; k < (period > 0 ? kAngles : 1); ++k) {
        made[static_cast<size_t>(i)].push_back(make_template(static_cast<Shape>(i), period * k / kAngles));
      }
    }
    return made;
  }();
  return all[static_cast<size_t>(shape)];
}

cv::Mat patch_of(const Blob& blob) {
  constexpr int kFine = kPatch * kOversampling;
  constexpr double kMiddle = (kFine - 1) / 2.0;
  const double step = std::sqrt(blob.area / kPatchArea) / kOversampling;  // px of the frame in one of the fine patch
  const cv::Matx23d to_frame(step, 0, blob.x - step * kMiddle, 0, step, blob.y - step * kMiddle);
  cv::Mat fine, patch;
  cv::warpAffine(blob.soft, fine, to_frame, {kFine, kFine}, cv::INTER_LINEAR | cv::WARP_INVERSE_MAP,
                 cv::BORDER_CONSTANT, 0);
  cv::resize(fine, patch, {kPatch, kPatch}, 0, 0, cv::INTER_AREA);
  return patch;
}

double overlap(const float* a, const float* b) {
  float smaller = 0, larger = 0;
  for (int i = 0; i < kPatch * kPatch; ++i) {
    smaller += std::min(a[i], b[i]);
    larger += std::max(a[i], b[i]);
  }
  return smaller / larger;
}

}  // namespace

std::array<ShapeMatch, kNumShapes> match_shapes(const Blob& blob) {
  const cv::Mat patch = patch_of(blob);
  std::array<ShapeMatch, kNumShapes> matches;
  for (int i = 0; i < kNumShapes; ++i) {
    ShapeMatch& match = matches[static_cast<size_t>(i)];
    for (const Template& one : templates_of(static_cast<Shape>(i))) {
      const double ratio = overlap(patch.ptr<float>(), one.coverage.data());
      if (ratio > match.overlap_ratio) match = {.overlap_ratio = ratio, .angle = one.angle};
    }
  }
  return matches;
}

}  // namespace strobe::training::sprites
