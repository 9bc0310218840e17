#include "training/sprites/checker/checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/counter_random.h"
#include "core/error.h"
#include "training/sprites/checker/degrade.h"
#include "training/sprites/render.h"

namespace strobe::training::sprites {
namespace {

constexpr uint64_t kSeed = 100;
const ClipView kView{.width = 64, .height = 64, .frames = 17};

ClipPixels clip_of(const Scene& scene, const ClipView& view = kView) {
  return from_planes(render(scene, view), view.frames, view.height, view.width);
}

// How many of the first `count` scenes are read right in all attributes, in percent; the wrong ones are named.
template <class Damage>
double right_percent(int count, const SceneOptions& options, const ClipView& view, const Damage& damage) {
  int right = 0;
  for (int index = 0; index < count; ++index) {
    const Scene scene = draw_scene(kSeed, static_cast<uint64_t>(index), options);
    ClipPixels clip = clip_of(scene, view);
    damage(clip, static_cast<uint64_t>(index));
    const Verdict verdict = judge(read_clip(clip, options.num_objects), named_attributes(scene, CaptionForm::kFull));
    if (!verdict.is_all_right()) ADD_FAILURE() << index << ": " << caption(scene, CaptionForm::kFull);
    right += verdict.is_all_right() ? 1 : 0;
  }
  return 100.0 * right / count;
}

void leave(ClipPixels& /*clip*/, uint64_t /*index*/) {}

TEST(SpriteChecker, reads_every_rendered_clip_right) {
  EXPECT_EQ(right_percent(60, {.split = Split::kAll}, kView, leave), 100);
  EXPECT_EQ(right_percent(20, {.split = Split::kAll}, {.width = 96, .height = 64, .frames = 21}, leave), 100);
}

TEST(SpriteChecker, reads_two_objects_and_counts_them) {
  EXPECT_EQ(right_percent(40, {.num_objects = 2, .split = Split::kAll}, kView, leave), 100);
}

TEST(SpriteChecker, bears_noise_and_blur) {
  EXPECT_EQ(right_percent(30, {.split = Split::kAll}, kView,
                          [](ClipPixels& clip, uint64_t index) { add_noise(clip, 0.1, kSeed, index); }),
            100);
  EXPECT_EQ(right_percent(30, {.split = Split::kAll}, kView, [](ClipPixels& clip, uint64_t) { blur(clip, 1); }), 100);
}

TEST(SpriteChecker, eight_bits_read_as_floats_do) {
  const Scene scene = draw_scene(kSeed, 3);
  const ClipPixels exact = clip_of(scene);
  std::vector<uint8_t> bytes;
  for (const float value : exact.rgb) bytes.push_back(static_cast<uint8_t>(255 * value + 0.5F));
  const NamedAttributes named = named_attributes(scene, CaptionForm::kFull);
  EXPECT_TRUE(judge(read_clip(from_bytes(bytes, 17, 64, 64)), named).is_all_right());
}

TEST(SpriteChecker, a_wrong_caption_is_wrong_in_what_it_says_wrong) {
  const Scene scene = draw_scene(kSeed, 7);
  const Reading reading = read_clip(clip_of(scene));
  const NamedAttributes right = named_attributes(scene, CaptionForm::kFull);
  ASSERT_TRUE(judge(reading, right).is_all_right());
  const auto next = [](auto value, int count) {
    return static_cast<decltype(value)>((static_cast<int>(value) + 1) % count);
  };
  const auto verdict_of = [&](auto change) {
    NamedAttributes wrong = right;
    change(wrong, wrong.objects[0]);
    const Verdict verdict = judge(reading, wrong);
    EXPECT_FALSE(verdict.is_all_right());
    return verdict;
  };
  const Verdict size = verdict_of([&](auto&, NamedObject& o) { o.size = next(*o.size, kNumSizes); });
  EXPECT_EQ(size.size, false);
  EXPECT_EQ(size.colour, true);
  EXPECT_EQ(verdict_of([&](auto&, NamedObject& o) { o.colour = next(*o.colour, kNumColours); }).colour, false);
  EXPECT_EQ(verdict_of([&](auto&, NamedObject& o) { o.shape = next(*o.shape, kNumShapes); }).shape, false);
  EXPECT_EQ(verdict_of([&](auto&, NamedObject& o) { o.motion = next(*o.motion, kNumMotions); }).motion, false);
  EXPECT_EQ(
      verdict_of([&](NamedAttributes& n, auto&) { n.background = next(*n.background, kNumBackgrounds); }).background,
      false);
  const Verdict two = verdict_of([](NamedAttributes& n, auto&) { n.objects.push_back(n.objects[0]); });
  EXPECT_EQ(two.count, false);
  EXPECT_EQ(two.colour, false);
}

TEST(SpriteChecker, what_a_caption_leaves_out_is_not_judged) {
  const Scene scene = draw_scene(kSeed, 9);
  const Reading reading = read_clip(clip_of(scene));
  const Verdict verdict = judge(reading, named_attributes(scene, CaptionForm::kObjectOnly));
  EXPECT_TRUE(verdict.is_all_right());
  EXPECT_EQ(verdict.size, std::nullopt);
  EXPECT_EQ(verdict.background, std::nullopt);
  EXPECT_EQ(verdict.count, std::nullopt);
  EXPECT_EQ(verdict.motion, true);
}

TEST(SpriteChecker, two_objects_are_right_in_either_order_and_not_when_mixed_up) {
  const Scene scene = draw_scene(kSeed, 1, {.num_objects = 2});
  const Reading reading = read_clip(clip_of(scene), 2);
  NamedAttributes named = named_attributes(scene, CaptionForm::kFull);
  EXPECT_TRUE(judge(reading, named).is_all_right());
  std::swap(named.objects[0], named.objects[1]);
  EXPECT_TRUE(judge(reading, named).is_all_right());
  std::swap(named.objects[0].colour, named.objects[1].colour);
  EXPECT_FALSE(judge(reading, named).is_all_right());
}

TEST(SpriteChecker, noise_and_empty_scenes_hold_no_object) {
  const NamedAttributes named = parse_caption("a red circle staying still on a gray background");
  CounterRandom random(1);
  ClipPixels noise{.frames = 9, .height = 64, .width = 64, .rgb = std::vector<float>(9 * 64 * 64 * 3)};
  for (float& value : noise.rgb) value = static_cast<float>(random.uniform());
  Scene empty;
  empty.backdrop = {Background::kGray, {0.45F, 0.45F, 0.45F}, {0.45F, 0.45F, 0.45F}};
  ClipPixels grey = clip_of(empty);
  for (int i = 0; i < 2; ++i) {
    for (const ClipPixels& clip : {noise, grey}) {
      EXPECT_TRUE(read_clip(clip, 2).objects.empty());
      const Verdict verdict = judge(read_clip(clip), named);
      EXPECT_FALSE(verdict.is_present);
      EXPECT_EQ(verdict.colour, false);
      EXPECT_EQ(verdict.motion, false);
      EXPECT_FALSE(verdict.is_all_right());
    }
    add_noise(grey, 0.1, 1, 0);
  }
}

TEST(SpriteChecker, an_object_that_leaves_for_a_third_of_the_clip_is_not_there) {
  const Scene scene = draw_scene(kSeed, 11);
  ClipPixels clip = clip_of(scene);
  const size_t third = clip.rgb.size() / 3;
  std::fill_n(clip.rgb.begin(), third, 0.5F);
  EXPECT_TRUE(read_clip(clip).objects.empty());
}

TEST(SpriteChecker, reads_clips_of_any_size) {
  for (const int64_t size : {1, 2, 5}) {
    for (const int64_t frames : {1, 2, 3}) {
      const ClipView view{.width = size, .height = size, .frames = frames};
      EXPECT_LE(read_clip(clip_of(draw_scene(kSeed, 1), view), 2).objects.size(), 2U);
    }
  }
  const ClipView still{.width = 64, .height = 64, .frames = 1};
  EXPECT_EQ(read_clip(clip_of(draw_scene(kSeed, 1), still)).objects.at(0).shape,
            draw_scene(kSeed, 1).objects[0].attributes.shape);
}

TEST(SpriteChecker, refuses_what_is_no_clip) {
  EXPECT_THROW(read_clip(ClipPixels{}), ShapeError);
  EXPECT_THROW(from_bytes(std::vector<uint8_t>(10), 1, 2, 2), ShapeError);
  EXPECT_THROW(from_planes(std::vector<float>(12), 2, 2, 2), ShapeError);
  std::vector<float> broken(12);
  broken[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(read_clip(from_planes(broken, 1, 2, 2)), ShapeError);
}

}  // namespace
}  // namespace strobe::training::sprites
