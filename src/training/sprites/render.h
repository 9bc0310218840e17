// Scenes to pixels: anti-aliased, any size and length, on one thread; callers run clips side by side.
//
// Pixels    RGB float32 in [-1, 1] (2 c - 1 of the colours), planes: [3, F, H, W], as VAEs take clips and
//           video::to_frames takes them.
// Geometry  Pixel (column, row) stands at ((column + 1/2) - W/2) / s, ((row + 1/2) - H/2) / s with s = min(W, H) / 2, so
//           that a longer side shows more of the backdrop. Frame f of F stands at tau = first + (last - first) f / (F - 1).
// Coverage  clamp(1/2 - distance * r * s, 0, 1) with the signed distance of shape.h at R(-angle) (p - c) / r; colour =
//           under (1 - coverage) + object coverage.
// Cost      About one pass over the buffer and one over each object's box.
// Errors    ShapeError for sizes below 1, a crop that leaves the clip, or a buffer of null.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "training/sprites/scene.h"

namespace strobe::training::sprites {

// A part of a clip; sizes in px.
struct Crop {
  int64_t left = 0, top = 0;
  int64_t width = 0, height = 0;  // 0: to the right and lower edge
};

struct ClipView {
  int64_t width = 64, height = 64;  // of the whole clip, px
  int64_t frames = 17;
  Crop crop = {};
  // The part of the path that the frames show. A single frame stands at first_tau.
  double first_tau = 0, last_tau = 1;

  int64_t shown_width() const { return crop.width > 0 ? crop.width : width - crop.left; }
  int64_t shown_height() const { return crop.height > 0 ? crop.height : height - crop.top; }
  int64_t elements() const { return 3 * frames * shown_width() * shown_height(); }
};

// Where the pixels go: element (channel, frame, row, column) at channel * channel_stride + frame * frame_stride +
// row * shown_width + column.
struct ClipBuffer {
  float* data = nullptr;
  int64_t channel_stride = 0, frame_stride = 0;
};
// [3, F, H, W] without gaps.
ClipBuffer planes(float* data, const ClipView& view);

void render(const Scene& scene, const ClipView& view, const ClipBuffer& buffer);
std::vector<float> render(const Scene& scene, const ClipView& view);  // [3, F, H, W]

// Clips that teach an autoencoder more than scenes do: 3 to 8 overlapping shapes of palette or any colours, radii from .1
// to .6 (log-uniform), each drifting, turning and growing, on a coloured backdrop, flat or graded.
void render_leaves(uint64_t seed, uint64_t index, const ClipView& view, const ClipBuffer& buffer);
std::vector<float> render_leaves(uint64_t seed, uint64_t index, const ClipView& view);  // [3, F, H, W]

// One frame: the backdrop, then the shapes in order, each over those before.
void paint(const Backdrop& backdrop, std::span<const Placement> shapes, const ClipView& view, int64_t frame,
           const ClipBuffer& buffer);
double tau_of(const ClipView& view, int64_t frame);

}  // namespace strobe::training::sprites
