#include "training/sprites/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <thread>

#include "core/error.h"
#include "training/sprites/shape.h"

namespace strobe::training::sprites {
namespace {

constexpr double kPi = std::numbers::pi;

// White on black, at rest in the middle.
Placement white(Shape shape, double radius) { return {.shape = shape, .colour = {1, 1, 1}, .radius = radius}; }

std::vector<float> paint_one(const Placement& shape, const ClipView& view) {
  std::vector<float> pixels(static_cast<size_t>(view.elements()));
  paint({}, std::vector<Placement>{shape}, view, 0, planes(pixels.data(), view));
  return pixels;
}

// Sums of the first channel's coverage, alone and weighted by place.
struct Moments {
  double area = 0, x = 0, y = 0;
};
Moments moments(const float* channel, const ClipView& view) {
  Moments sums;
  for (int64_t row = 0; row < view.height; ++row) {
    for (int64_t column = 0; column < view.width; ++column) {
      const double coverage = (channel[row * view.width + column] + 1) / 2;
      sums.area += coverage;
      sums.x += coverage * (2 * (static_cast<double>(column) + 0.5) / static_cast<double>(view.width) - 1);
      sums.y += coverage * (2 * (static_cast<double>(row) + 0.5) / static_cast<double>(view.height) - 1);
    }
  }
  sums.x /= sums.area;
  sums.y /= sums.area;
  return sums;
}

// The star of the specification, by angles.
double star_by_angle(double x, double y) {
  const double sector = 2 * kPi / 5, half = kPi / 5;
  double angle = std::fmod(std::fabs(std::atan2(x, -y)), sector);
  if (angle > half) angle = sector - angle;
  const double px = std::hypot(x, y) * std::cos(angle), py = std::hypot(x, y) * std::sin(angle);
  const double bx = 0.56 * std::cos(half) - 1.36, by = 0.56 * std::sin(half);
  return ((px - 1.36) * by - py * bx) / std::hypot(bx, by);
}

TEST(SpriteShape, the_star_is_that_of_its_angles) {
  for (double x = -1.5; x <= 1.5; x += 0.07) {
    for (double y = -1.5; y <= 1.5; y += 0.07) {
      EXPECT_NEAR(signed_distance<Shape::kStar>(static_cast<float>(x), static_cast<float>(y)), star_by_angle(x, y),
                  1e-5)
          << x << " " << y;
    }
  }
}

TEST(SpriteShape, distances_at_named_points) {
  EXPECT_FLOAT_EQ(signed_distance<Shape::kCircle>(3, 4), 4);
  EXPECT_FLOAT_EQ(signed_distance<Shape::kRing>(0, 0), 0.58F);
  EXPECT_FLOAT_EQ(signed_distance<Shape::kSquare>(0.5F, -1), 0.12F);
  EXPECT_NEAR(signed_distance<Shape::kCross>(1.12F, 0.38F), 0, 1e-6);
  EXPECT_NEAR(signed_distance<Shape::kTriangle>(0, -1.32F), 0, 1e-6);  // up is negative
  EXPECT_NEAR(signed_distance<Shape::kTriangle>(0, 0.66F), 0, 1e-6);
}

TEST(SpriteRender, a_shape_covers_its_area_whatever_its_angle) {
  const ClipView view{.width = 128, .height = 128, .frames = 1};
  for (int i = 0; i < kNumShapes; ++i) {
    const auto shape = static_cast<Shape>(i);
    for (const double angle : {0.0, 0.4, 1.9}) {
      Placement one = white(shape, 0.5);
      one.angle = angle;
      const std::vector<float> pixels = paint_one(one, view);
      const double area = unit_area(shape) * 0.25 * 64 * 64;  // r^2 in px
      EXPECT_NEAR(moments(pixels.data(), view).area, area, 0.01 * area) << name(shape) << " at " << angle;
      EXPECT_NEAR(moments(pixels.data(), view).x, 0, 0.01) << name(shape);
    }
  }
}

TEST(SpriteRender, coverage_is_that_of_the_formula) {
  // A pixel whose middle lies 0.2 px inside the circle's edge: coverage 0.7.
  const ClipView view{.width = 8, .height = 8, .frames = 1};
  const Placement circle = white(Shape::kCircle, std::hypot(2.5, 0.5) / 4 + 0.2 / 4);
  const std::vector<float> pixels = paint_one(circle, view);
  EXPECT_NEAR((pixels[3 * 8 + 6] + 1) / 2, 0.7, 1e-5);
  EXPECT_EQ(pixels[0], -1.0F);
  EXPECT_EQ(pixels[3 * 8 + 3], 1.0F);
}

TEST(SpriteRender, objects_stand_where_their_motion_says) {
  const ClipView view{.width = 64, .height = 64, .frames = 9};
  SceneObject object{.attributes = {.shape = Shape::kCircle}, .colour = {1, 1, 1}, .radius = 0.3};
  struct Case {
    Motion motion;
    double tau, x, y;
  };
  object.reach = 0.4, object.phase = kPi / 2;
  const std::vector<Case> cases = {
      {Motion::kLeft, 0, 0.4, 0},         {Motion::kLeft, 1, -0.4, 0},    {Motion::kRight, 0.75, 0.2, 0},
      {Motion::kUp, 0, 0, 0.4},           {Motion::kDown, 1, 0, 0.4},     {Motion::kCircling, 0, 0, 0.4},
      {Motion::kCircling, 0.25, -0.4, 0},  // from below to the left: clockwise on the screen
      {Motion::kBouncing, 0.25, 0, -0.4}, {Motion::kBouncing, 0.5, 0, 0}, {Motion::kStill, 0.5, 0, 0}};
  for (const Case& one : cases) {
    object.attributes.motion = one.motion;
    Scene scene;
    scene.objects = {object};
    const std::vector<float> pixels = render(scene, view);
    const auto frame = static_cast<int64_t>(one.tau * 8);
    const Moments found = moments(pixels.data() + frame * 64 * 64, view);
    EXPECT_NEAR(found.x, one.x, 2e-3) << name(one.motion) << " " << one.tau;
    EXPECT_NEAR(found.y, one.y, 2e-3) << name(one.motion) << " " << one.tau;
  }
  EXPECT_DOUBLE_EQ(place({.attributes = {.motion = Motion::kGrowing}, .radius = 1}, 1).radius, 1.05);
  EXPECT_DOUBLE_EQ(place({.attributes = {.motion = Motion::kShrinking}, .radius = 1}, 1).radius, 0.45);
  EXPECT_DOUBLE_EQ(place({.attributes = {.motion = Motion::kSpinning}, .radius = 1}, 1).angle, 1.5 * kPi);
}

TEST(SpriteRender, backdrops_have_their_levels) {
  const ClipView view{.width = 16, .height = 16, .frames = 1};
  const auto level = [&](const Backdrop& backdrop, int64_t row, int64_t column) {
    std::vector<float> pixels(static_cast<size_t>(view.elements()));
    paint(backdrop, {}, view, 0, planes(pixels.data(), view));
    return (pixels[static_cast<size_t>(row * 16 + column)] + 1) / 2;
  };
  const Rgb low = {0.08F, 0.08F, 0.08F}, high = {0.68F, 0.68F, 0.68F};
  EXPECT_NEAR(level({Background::kGradient, low, high}, 0, 3), 0.08 + 0.6 / 32, 1e-6);
  EXPECT_NEAR(level({Background::kGradient, low, high}, 15, 3), 0.68 - 0.6 / 32, 1e-6);
  EXPECT_NEAR(level({Background::kCheckered, low, high}, 3, 3), 0.08, 1e-6);
  EXPECT_NEAR(level({Background::kCheckered, low, high}, 3, 4), 0.68, 1e-6);
  EXPECT_NEAR(level({Background::kCheckered, low, high}, 4, 4), 0.08, 1e-6);
}

TEST(SpriteRender, depends_on_seed_and_index_alone) {
  const ClipView view{.width = 32, .height = 32, .frames = 5};
  constexpr size_t kClips = 16;
  const auto clip = [&](size_t index) {
    std::vector<float> pixels = render(draw_scene(7, index, {.num_objects = index % 2 == 0 ? 1 : 2}), view);
    const std::vector<float> leaves = render_leaves(7, index, view);
    pixels.insert(pixels.end(), leaves.begin(), leaves.end());
    return pixels;
  };
  std::vector<std::vector<float>> alone(kClips), together(kClips);
  for (size_t i = kClips; i-- > 0;) alone[i] = clip(i);
  std::vector<std::thread> threads;
  for (size_t first = 0; first < 4; ++first) {
    threads.emplace_back([&, first] {
      for (size_t i = first; i < kClips; i += 4) together[i] = clip(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(alone, together);
  EXPECT_NE(alone[0], alone[2]);
  EXPECT_NE(render(draw_scene(8, 0), view), render(draw_scene(7, 0), view));
}

TEST(SpriteRender, a_crop_a_window_of_time_and_strides_are_cut_from_the_whole) {
  const Scene scene = draw_scene(3, 5);
  const ClipView whole{.width = 48, .height = 32, .frames = 9};
  const std::vector<float> all = render(scene, whole);
  ClipView part = whole;
  part.crop = {.left = 10, .top = 4, .width = 16, .height = 20};
  part.first_tau = tau_of(whole, 2), part.last_tau = tau_of(whole, 4), part.frames = 3;
  // [F, 3, H, W] by strides.
  constexpr int64_t kPlane = 16 * 20;
  std::vector<float> cut(static_cast<size_t>(part.elements()));
  render(scene, part, {.data = cut.data(), .channel_stride = kPlane, .frame_stride = 3 * kPlane});
  for (int64_t i = 0; i < part.elements(); ++i) {
    const int64_t frame = i / (3 * kPlane), channel = i / kPlane % 3, row = i % kPlane / 16, column = i % 16;
    const int64_t from = ((channel * 9 + frame + 2) * 32 + row + 4) * 48 + column + 10;
    ASSERT_NEAR(cut[static_cast<size_t>(i)], all[static_cast<size_t>(from)], 1e-4) << i;
  }
  ClipView outside = whole;
  outside.crop = {.left = 40, .width = 16, .height = 16};
  EXPECT_THROW(render(scene, outside), ShapeError);
  EXPECT_THROW(render(scene, ClipView{.width = 0}), ShapeError);
  EXPECT_THROW(render(scene, whole, ClipBuffer{}), ShapeError);
}

TEST(SpriteScene, two_objects_keep_to_their_halves_in_different_colours) {
  for (uint64_t index = 0; index < 300; ++index) {
    const Scene scene = draw_scene(1, index, {.num_objects = 2});
    ASSERT_EQ(scene.objects.size(), 2U);
    const SceneObject &a = scene.objects[0], &b = scene.objects[1];
    EXPECT_NE(a.attributes.colour, b.attributes.colour);
    double apart_x = 2, apart_y = 2;  // gap between the circles of radius r around them, over the whole clip
    for (double ta = 0; ta <= 1; ta += 0.05) {
      for (double tb = 0; tb <= 1; tb += 0.05) {
        const Placement pa = place(a, ta), pb = place(b, tb);
        apart_x = std::min(apart_x, std::fabs(pa.x - pb.x) - pa.radius - pb.radius);
        apart_y = std::min(apart_y, std::fabs(pa.y - pb.y) - pa.radius - pb.radius);
      }
    }
    EXPECT_GT(std::max(apart_x, apart_y), 0) << index;
  }
  EXPECT_THROW(draw_scene(1, 0, {.num_objects = 3}), ShapeError);
}

TEST(SpriteScene, every_value_is_drawn_and_nothing_that_is_held_out) {
  std::vector<int> sizes(kNumSizes), colours(kNumColours), shapes(kNumShapes), motions(kNumMotions),
      backgrounds(kNumBackgrounds), forms(kNumCaptionForms);
  constexpr int kScenes = 8000;
  for (uint64_t index = 0; index < kScenes; ++index) {
    const Scene scene = draw_scene(11, index);
    const SceneObject& object = scene.objects[0];
    const ObjectAttributes& a = object.attributes;
    EXPECT_FALSE(is_held_out(a, scene.background));
    EXPECT_TRUE(a.motion != Motion::kSpinning || can_spin(a.shape));
    EXPECT_GE(object.radius, a.size == Size::kSmall ? 0.25 : 0.40);
    EXPECT_LE(object.radius, a.size == Size::kSmall ? 0.31 : 0.48);
    ++sizes[static_cast<size_t>(a.size)], ++colours[static_cast<size_t>(a.colour)];
    ++shapes[static_cast<size_t>(a.shape)], ++motions[static_cast<size_t>(a.motion)];
    ++backgrounds[static_cast<size_t>(scene.background)], ++forms[static_cast<size_t>(scene.form)];
  }
  const auto expect_even = [](const std::vector<int>& counts, double low, double high) {
    for (const int count : counts) {
      EXPECT_GT(count, low * kScenes / static_cast<double>(counts.size()));
      EXPECT_LT(count, high * kScenes / static_cast<double>(counts.size()));
    }
  };
  expect_even(sizes, 0.95, 1.05);
  expect_even(colours, 0.85, 1.15);
  expect_even(shapes, 0.85, 1.15);
  expect_even(motions, 0.6, 1.25);  // spinning is four shapes' alone
  expect_even(backgrounds, 0.85, 1.15);
  EXPECT_NEAR(forms[0], kScenes / 2, kScenes * 0.03);
  EXPECT_NEAR(forms[4], kScenes / 8, kScenes * 0.02);
}

TEST(SpriteLeaves, fill_the_values_and_differ_over_time) {
  const ClipView view{.width = 64, .height = 64, .frames = 5};
  double covered = 0;
  for (uint64_t index = 0; index < 20; ++index) {
    const std::vector<float> pixels = render_leaves(2, index, view);
    const auto [low, high] = std::minmax_element(pixels.begin(), pixels.end());
    EXPECT_GE(*low, -1.0F);
    EXPECT_LE(*high, 1.0F);
    double changed = 0;
    for (size_t i = 0; i < 64 * 64; ++i) changed += std::fabs(pixels[i] - pixels[i + 4 * 64 * 64]) > 0.05 ? 1 : 0;
    covered += changed / (64 * 64 * 20);
  }
  EXPECT_GT(covered, 0.3);
}

}  // namespace
}  // namespace strobe::training::sprites
