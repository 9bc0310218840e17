// A clip before it is drawn: attributes, jitter and paths of its objects, as a function of (seed, index) alone.
//
// Place     x right, y down; the square of the clip's shorter side is [-1, 1] x [-1, 1]. tau runs from 0 to 1 over the
//           clip.
// Size      Small r ~ U(.25, .31), large U(.40, .48); a centre stays within lim = 1 - 1.12 r.
// Motion    Moving: from -d to d, d = min(.6, lim) U(.9, 1), the other axis fixed at U(-1, 1) .85 lim. In a circle: about
//           the middle, radius min(.5, lim) U(.85, 1), one turn, clockwise, any start. Bouncing: twice from the floor
//           lim by 2 lim U(.75, 1). Growing r (.45 + .6 tau), shrinking r (1.05 - .6 tau), spinning by 1.5 pi.
// Two       Objects of different colours in separate halves (beside or above each other), radii and lengths times 0.6,
//           with a margin of 1.2 r.
#pragma once

#include <cstdint>
#include <vector>

#include "training/sprites/attributes.h"

namespace strobe::training::sprites {

// kFull         "a small red circle moving left on a black background"
// kTerse        "small red circle moving left, black background"
// kWithoutSize  "a red circle moving left on a black background"
// kObjectOnly   "a red circle moving left"
// kVerb         "a red circle moves left over a black background"
enum class CaptionForm : uint8_t { kFull, kTerse, kWithoutSize, kObjectOnly, kVerb };
inline constexpr int kNumCaptionForms = 5;

// Radii and lengths of two objects relative to those of one.
inline constexpr double kScaleOfTwo = 0.6;

struct SceneObject {
  ObjectAttributes attributes;
  Rgb colour = {};
  double radius = 0;
  double angle = 0;     // radians, clockwise on the screen
  double x = 0, y = 0;  // the place it keeps; the middle of its path; of a bouncing object, the floor
  double reach = 0;     // d, the circle's radius or the height of a bounce
  double phase = 0;     // where on the circle it starts
};

// A shape at one moment.
struct Placement {
  Shape shape = Shape::kCircle;
  Rgb colour = {};
  double x = 0, y = 0, radius = 0, angle = 0;
};
Placement place(const SceneObject& object, double tau);

// Colours from top to bottom; of a checkered one, of its two kinds of cells (half a unit each way).
struct Backdrop {
  Background kind = Background::kBlack;
  Rgb first = {}, second = {};
};

struct Scene {
  Background background = Background::kBlack;
  Backdrop backdrop;
  std::vector<SceneObject> objects;
  CaptionForm form = CaptionForm::kFull;  // drawn with weights 4 : 1 : 1 : 1 : 1
};

// Which combinations are drawn (is_held_out); of two objects, all are of the split.
enum class Split : uint8_t { kTraining, kHeldOut, kAll };

struct SceneOptions {
  int num_objects = 1;  // or 2
  Split split = Split::kTraining;
};

// ShapeError for another number of objects.
Scene draw_scene(uint64_t seed, uint64_t index, const SceneOptions& options = {});

// The scenes of the fixed evaluation captions: held-out combinations, forms that name at least colour, shape, motion and
// background, no caption twice. The same list for ever; `caption(scene)` is what a model is asked for.
inline constexpr int kNumEvaluationScenes = 200;
std::vector<Scene> evaluation_scenes();

}  // namespace strobe::training::sprites
