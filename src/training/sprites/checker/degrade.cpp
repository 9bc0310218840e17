#include "training/sprites/checker/degrade.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <opencv2/imgproc.hpp>

#include "core/counter_random.h"

namespace strobe::training::sprites {

void add_noise(ClipPixels& clip, double deviation, uint64_t seed, uint64_t index) {
  constexpr uint64_t kStream = 0x9015e;  // apart from the scene's
  CounterRandom random(seed, index, kStream);
  for (float& value : clip.rgb) {
    // Box and Muller; 1 - u is never 0.
    const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
    const double normal = radius * std::cos(2 * std::numbers::pi * random.uniform());
    value = static_cast<float>(std::clamp(value + deviation * normal, 0.0, 1.0));
  }
}

void blur(ClipPixels& clip, double sigma_px) {
  const auto height = static_cast<int>(clip.height), width = static_cast<int>(clip.width);
  for (int64_t frame = 0; frame < clip.frames; ++frame) {
    cv::Mat image(height, width, CV_32FC3, clip.rgb.data() + frame * clip.height * clip.width * 3);
    cv::GaussianBlur(image, image, {0, 0}, sigma_px);
  }
}

}  // namespace strobe::training::sprites
