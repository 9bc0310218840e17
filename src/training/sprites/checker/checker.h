// Reads the attributes of a sprite clip back from its pixels, and holds them against a caption.
//
// Rules     In order; lengths in the units of scene.h, areas as soft masks.
//   Object      chroma = max - min of RGB; pixels above half the frame's 99.5 percentile (frames where that is under .25
//               are passed over); the largest 4-connected component of at least .4 % of the frame; there if it is found
//               in 80 % of the frames. Soft mask: chroma / median chroma of the component, at most 1, within 2 px of it.
//   Colour      nearest of the palette to the median over frames of the median colour where the soft mask is above .9.
//   Shape       best soft overlap (sum of minima / sum of maxima) with the six shapes at 16 angles, on 32 x 32 patches of
//               equal area; mean over the half of the frames with the largest area, those at the border left out.
//   Motion      the first that holds: circle (both extents > .3, sweep > 1.3 pi), growing or shrinking (log ratio of
//               sqrt(area) > .35, net way < .35), moving (net > .35 and > .7 of the larger extent), bouncing (y extent
//               > .3, x < .6 of it, path > 1.5 of it), spinning (turn > 1.7), still (extents < .2); else none.
//   Size        sqrt(area / unit_area) < .355 is small: median over frames, maximum where it grows or shrinks.
//   Background  on the border of the median over time: below - above > .3 gradient; deviation > .09 checkered; median
//               < .22 black, < .68 gray, else white.
// Second    Where two are looked for, what is left without the first object is searched the same way, both from .15 %
//           of the frame on (percentile 99.8); if both are there, lengths are held against kScaleOfTwo of the limits.
// Differs   From the specification in what it does not say: a component counts only if its mean colour has a chroma of
//           .25 too, so that noise, whose pixels are colourful and whose mean is grey, is no object; colourful pixels
//           are no background.
// Cost      About 20 passes over the pixels, and 66 templates a frame.
// Errors    ShapeError for empty clips, wrong lengths and NaN.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "training/sprites/caption.h"

namespace strobe::training::sprites {

// [F, H, W, 3] float32 RGB in 0..1.
struct ClipPixels {
  int64_t frames = 0, height = 0, width = 0;
  std::vector<float> rgb;
};
ClipPixels from_bytes(std::span<const uint8_t> frames,  // [F, H, W, 3]
                      int64_t count, int64_t height, int64_t width);
ClipPixels from_planes(std::span<const float> clip,  // [3, F, H, W] in [-1, 1], clamped
                       int64_t count, int64_t height, int64_t width);

struct ObjectReading {
  Size size = Size::kSmall;
  Colour colour = Colour::kRed;
  Shape shape = Shape::kCircle;
  std::optional<Motion> motion;  // none: like nothing that captions name
  double presence_ratio = 0;     // of the frames
  double radius = 0;             // what the size was decided by
  double overlap_ratio = 0;      // with the best shape's templates
};

struct Reading {
  std::vector<ObjectReading> objects;  // none, one or two; the larger first
  Background background = Background::kBlack;
};

// With `max_objects` 1 the largest component of each frame is the object, whatever else is there.
Reading read_clip(const ClipPixels& clip, int max_objects = 1);

// What a caption names, right or wrong; empty where it names nothing. Of two objects both must be right, in the better of
// the two orders; `count` is judged where a caption names two.
struct Verdict {
  bool is_present = false;  // at least one object, where one is named
  std::optional<bool> count, size, colour, shape, motion, background;

  bool is_all_right() const;
};

Verdict judge(const Reading& reading, const NamedAttributes& named);

}  // namespace strobe::training::sprites
