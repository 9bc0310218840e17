// The clips of render_leaves.
#include <cmath>
#include <numbers>

#include "core/counter_random.h"
#include "training/sprites/render.h"

namespace strobe::training::sprites {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr uint64_t kMinLeaves = 3, kMaxLeaves = 8;
constexpr double kMinRadius = 0.1, kMaxRadius = 0.6;
// Over a whole clip: way each axis, half turns, factor of growth. About what the fastest scenes do.
constexpr double kDrift = 0.8, kTurn = kPi, kGrowth = 1.6;
// Streams of the generator, apart from those of scenes with the same seed.
constexpr uint64_t kStream = 0x1ea7e5;

struct Leaf {
  Placement first;
  double drift_x = 0, drift_y = 0, turn = 0, log_growth = 0;
};

Rgb any_colour(CounterRandom& random) {
  Rgb colour = {};
  for (float& channel : colour) channel = static_cast<float>(random.uniform());
  return colour;
}

Leaf draw_leaf(CounterRandom& random) {
  Leaf leaf;
  leaf.first.shape = static_cast<Shape>(random.below(kNumShapes));
  leaf.first.colour =
      random.below(2) == 0 ? palette(static_cast<Colour>(random.below(kNumColours))) : any_colour(random);
  leaf.first.x = random.uniform(-1, 1);
  leaf.first.y = random.uniform(-1, 1);
  leaf.first.radius = kMinRadius * std::pow(kMaxRadius / kMinRadius, random.uniform());
  leaf.first.angle = random.uniform(-kPi, kPi);
  leaf.drift_x = random.uniform(-kDrift, kDrift);
  leaf.drift_y = random.uniform(-kDrift, kDrift);
  leaf.turn = random.uniform(-kTurn, kTurn);
  leaf.log_growth = random.uniform(-1, 1) * std::log(kGrowth);
  return leaf;
}

Placement place(const Leaf& leaf, double tau) {
  Placement now = leaf.first;
  now.x += leaf.drift_x * tau;
  now.y += leaf.drift_y * tau;
  now.angle += leaf.turn * tau;
  now.radius *= std::exp(leaf.log_growth * tau);
  return now;
}

}  // namespace

void render_leaves(uint64_t seed, uint64_t index, const ClipView& view, const ClipBuffer& buffer) {
  CounterRandom random(seed, index, kStream);
  const bool is_graded = random.below(2) == 0;
  Backdrop backdrop{.kind = Background::kGradient, .first = any_colour(random), .second = any_colour(random)};
  if (!is_graded) backdrop.second = backdrop.first;
  std::vector<Leaf> leaves(kMinLeaves + random.below(kMaxLeaves - kMinLeaves + 1));
  for (Leaf& leaf : leaves) leaf = draw_leaf(random);
  std::vector<Placement> placed(leaves.size());
  for (int64_t frame = 0; frame < view.frames; ++frame) {
    for (size_t i = 0; i < leaves.size(); ++i) placed[i] = place(leaves[i], tau_of(view, frame));
    paint(backdrop, placed, view, frame, buffer);
  }
}

std::vector<float> render_leaves(uint64_t seed, uint64_t index, const ClipView& view) {
  std::vector<float> pixels(static_cast<size_t>(view.elements()));
  render_leaves(seed, index, view, planes(pixels.data(), view));
  return pixels;
}

}  // namespace strobe::training::sprites
