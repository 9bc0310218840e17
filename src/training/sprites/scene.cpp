#include "training/sprites/scene.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "core/counter_random.h"
#include "core/error.h"
#include "training/sprites/caption.h"

namespace strobe::training::sprites {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr double kColourJitter = 0.02;
constexpr double kStartAngle = 0.12;
constexpr double kMargin = 1.12, kMarginOfTwo = 1.2;
constexpr uint64_t kEvaluationSeed = 20'000;

// Where an object may be: the middle of its part of the clip and how far it may go each way before its radius.
struct Room {
  double x = 0, y = 0, half_width = 1, half_height = 1;
  double scale = 1;  // of radii and lengths
  double margin = kMargin;
};

template <class Enum>
Enum pick(CounterRandom& random, int count) {
  return static_cast<Enum>(random.below(static_cast<uint64_t>(count)));
}

ObjectAttributes draw_attributes(CounterRandom& random) {
  ObjectAttributes drawn;
  drawn.size = pick<Size>(random, kNumSizes);
  drawn.colour = pick<Colour>(random, kNumColours);
  drawn.shape = pick<Shape>(random, kNumShapes);
  do {
    drawn.motion = pick<Motion>(random, kNumMotions);
  } while (drawn.motion == Motion::kSpinning && !can_spin(drawn.shape));
  return drawn;
}

CaptionForm draw_form(CounterRandom& random) {
  constexpr uint64_t kFullWeight = 4, kWeights = kFullWeight + kNumCaptionForms - 1;
  const uint64_t drawn = random.below(kWeights);
  return drawn < kFullWeight ? CaptionForm::kFull : static_cast<CaptionForm>(drawn - kFullWeight + 1);
}

bool is_in(Split split, const std::vector<ObjectAttributes>& objects, Background background) {
  return split == Split::kAll || std::all_of(objects.begin(), objects.end(), [&](const ObjectAttributes& object) {
           return is_held_out(object, background) == (split == Split::kHeldOut);
         });
}

Rgb grey(double level) {
  const auto value = static_cast<float>(level);
  return {value, value, value};
}

Backdrop draw_backdrop(CounterRandom& random, Background kind) {
  const double chance = random.uniform();
  const auto flat = [&](double low, double high) {
    const Rgb colour = grey(low + (high - low) * chance);
    return Backdrop{kind, colour, colour};
  };
  switch (kind) {
    case Background::kBlack:
      return flat(0.04, 0.08);
    case Background::kGray:
      return flat(0.42, 0.50);
    case Background::kWhite:
      return flat(0.90, 0.96);
    case Background::kGradient:
      return {kind, grey(0.08), grey(0.68)};
    case Background::kCheckered:
      return {kind, grey(0.30), grey(0.58)};
  }
  return {};
}

SceneObject draw_object(CounterRandom& random, const ObjectAttributes& attributes, const Room& room) {
  SceneObject object{.attributes = attributes, .colour = palette(attributes.colour)};
  for (float& channel : object.colour) {
    const double jittered = channel + random.uniform(-kColourJitter, kColourJitter);
    channel = static_cast<float>(std::clamp(jittered, 0.0, 1.0));
  }
  const bool is_small = attributes.size == Size::kSmall;
  object.radius = room.scale * (is_small ? random.uniform(0.25, 0.31) : random.uniform(0.40, 0.48));
  object.angle = random.uniform(-kStartAngle, kStartAngle);
  const double limit_x = room.half_width - room.margin * object.radius;
  const double limit_y = room.half_height - room.margin * object.radius;
  object.x = room.x + 0.85 * limit_x * random.uniform(-1, 1);
  object.y = room.y + 0.85 * limit_y * random.uniform(-1, 1);
  const double chance = random.uniform();
  object.phase = random.uniform(0, 2 * kPi);
  switch (attributes.motion) {
    case Motion::kLeft:
    case Motion::kRight:
      object.x = room.x;
      object.reach = std::min(0.6, limit_x) * (0.9 + 0.1 * chance);
      break;
    case Motion::kUp:
    case Motion::kDown:
      object.y = room.y;
      object.reach = std::min(0.6, limit_y) * (0.9 + 0.1 * chance);
      break;
    case Motion::kCircling:
      object.x = room.x;
      object.y = room.y;
      object.reach = std::min({0.5, limit_x, limit_y}) * (0.85 + 0.15 * chance);
      break;
    case Motion::kBouncing:
      object.y = room.y + limit_y;
      object.reach = 2 * limit_y * (0.75 + 0.25 * chance);
      break;
    default:
      break;
  }
  return object;
}

std::vector<Room> draw_rooms(CounterRandom& random, int num_objects) {
  if (num_objects == 1) return {Room{}};
  const bool is_beside = random.below(2) == 0;
  const double sign = random.below(2) == 0 ? 1 : -1;
  std::vector<Room> rooms;
  for (const double side : {-sign, sign}) {
    Room room{.scale = kScaleOfTwo, .margin = kMarginOfTwo};
    (is_beside ? room.x : room.y) = 0.5 * side;
    (is_beside ? room.half_width : room.half_height) = 0.5;
    rooms.push_back(room);
  }
  return rooms;
}

}  // namespace

Placement place(const SceneObject& object, double tau) {
  Placement now{object.attributes.shape, object.colour, object.x, object.y, object.radius, object.angle};
  const double along = object.reach * (2 * tau - 1);
  switch (object.attributes.motion) {
    case Motion::kLeft:
      now.x -= along;
      break;
    case Motion::kRight:
      now.x += along;
      break;
    case Motion::kUp:
      now.y -= along;
      break;
    case Motion::kDown:
      now.y += along;
      break;
    case Motion::kCircling:
      now.x += object.reach * std::cos(object.phase + 2 * kPi * tau);
      now.y += object.reach * std::sin(object.phase + 2 * kPi * tau);
      break;
    case Motion::kBouncing:
      now.y -= object.reach * std::fabs(std::sin(2 * kPi * tau));
      break;
    case Motion::kGrowing:
      now.radius *= 0.45 + 0.6 * tau;
      break;
    case Motion::kShrinking:
      now.radius *= 1.05 - 0.6 * tau;
      break;
    case Motion::kSpinning:
      now.angle += 1.5 * kPi * tau;
      break;
    case Motion::kStill:
      break;
  }
  return now;
}

Scene draw_scene(uint64_t seed, uint64_t index, const SceneOptions& options) {
  STROBE_CHECK(options.num_objects == 1 || options.num_objects == 2, "draw_scene: num_objects: expected 1 or 2, got {}",
               options.num_objects);
  for (uint64_t attempt = 0;; ++attempt) {
    CounterRandom random(seed, index, attempt);
    std::vector<ObjectAttributes> objects(static_cast<size_t>(options.num_objects));
    for (ObjectAttributes& object : objects) object = draw_attributes(random);
    const auto background = pick<Background>(random, kNumBackgrounds);
    const bool is_two_coloured = objects.size() < 2 || objects[0].colour != objects[1].colour;
    if (!is_two_coloured || !is_in(options.split, objects, background)) continue;
    Scene scene{.background = background, .backdrop = draw_backdrop(random, background), .objects = {}};
    scene.form = draw_form(random);
    const std::vector<Room> rooms = draw_rooms(random, options.num_objects);
    for (size_t i = 0; i < objects.size(); ++i) scene.objects.push_back(draw_object(random, objects[i], rooms[i]));
    return scene;
  }
}

std::vector<Scene> evaluation_scenes() {
  std::vector<Scene> scenes;
  std::set<std::string> captions;
  for (uint64_t index = 0; scenes.size() < kNumEvaluationScenes; ++index) {
    Scene scene = draw_scene(kEvaluationSeed, index, {.split = Split::kHeldOut});
    if (scene.form == CaptionForm::kObjectOnly || !captions.insert(caption(scene)).second) continue;
    scenes.push_back(std::move(scene));
  }
  return scenes;
}

}  // namespace strobe::training::sprites
