#include "training/sprites/render.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "training/sprites/shape.h"

namespace strobe::training::sprites {
namespace {

float to_signed(double level) { return static_cast<float>(2 * level - 1); }

// Half of the shorter side: px in a unit of length.
double unit_px(const ClipView& view) { return static_cast<double>(std::min(view.width, view.height)) / 2; }

// The place of a shown column's or row's middle.
struct Axis {
  double offset, step;
  double at(int64_t i) const { return offset + step * static_cast<double>(i); }
};
Axis axis(int64_t size, int64_t first, double unit) {
  return {(static_cast<double>(first) + 0.5 - static_cast<double>(size) / 2) / unit, 1 / unit};
}

struct Frame {
  float* channels[3];
  int64_t width, height;
  Axis x, y;
  double unit;
};

Frame frame_of(const ClipView& view, int64_t frame, const ClipBuffer& buffer) {
  const double unit = unit_px(view);
  float* first = buffer.data + frame * buffer.frame_stride;
  return {.channels = {first, first + buffer.channel_stride, first + 2 * buffer.channel_stride},
          .width = view.shown_width(),
          .height = view.shown_height(),
          .x = axis(view.width, view.crop.left, unit),
          .y = axis(view.height, view.crop.top, unit),
          .unit = unit};
}

void paint_backdrop(const Backdrop& backdrop, const Frame& frame) {
  const auto cell = [](double place) { return static_cast<int64_t>(std::floor(2 * (place + 1))); };
  for (int channel = 0; channel < 3; ++channel) {
    const float first = to_signed(backdrop.first[channel]), second = to_signed(backdrop.second[channel]);
    for (int64_t row = 0; row < frame.height; ++row) {
      float* out = frame.channels[channel] + row * frame.width;
      const double y = frame.y.at(row);
      if (backdrop.kind == Background::kCheckered) {
        for (int64_t column = 0; column < frame.width; ++column) {
          out[column] = ((cell(frame.x.at(column)) + cell(y)) & 1) == 0 ? first : second;
        }
      } else {
        const auto share = static_cast<float>(std::clamp((y + 1) / 2, 0.0, 1.0));
        std::fill_n(out, frame.width, first == second ? first : first + (second - first) * share);
      }
    }
  }
}

// Shown columns or rows within `reach` of `centre`, with half a pixel of blur on either side.
struct Range {
  int64_t begin, end;
};
Range range(const Axis& axis, int64_t size, double centre, double reach) {
  const double first = std::floor((centre - reach - axis.offset) / axis.step - 1);
  const double last = std::ceil((centre + reach - axis.offset) / axis.step + 1);
  const auto limit = static_cast<double>(size);
  return {static_cast<int64_t>(std::clamp(first, 0.0, limit)), static_cast<int64_t>(std::clamp(last + 1, 0.0, limit))};
}

// A row of pixels in the shape's own coordinates, and px in its radius.
struct LocalRow {
  float x, y, step_x, step_y, radius_px;
};

template <Shape kShape>
void cover(const LocalRow& row, int64_t count, float* coverage) {
  for (int64_t i = 0; i < count; ++i) {
    const auto along = static_cast<float>(i);
    const float distance = signed_distance<kShape>(row.x + along * row.step_x, row.y + along * row.step_y);
    coverage[i] = std::min(std::max(0.5F - distance * row.radius_px, 0.0F), 1.0F);
  }
}

void blend(const float* coverage, int64_t count, float colour, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] += (colour - out[i]) * coverage[i];
}

void paint_shape(const Placement& shape, const Frame& frame, std::vector<float>& coverage) {
  const double reach = unit_reach(shape.shape) * shape.radius;
  const Range columns = range(frame.x, frame.width, shape.x, reach),
              rows = range(frame.y, frame.height, shape.y, reach);
  const int64_t count = columns.end - columns.begin;
  if (count <= 0) return;
  const double cosine = std::cos(shape.angle) / shape.radius, sine = std::sin(shape.angle) / shape.radius;
  const double x = frame.x.at(columns.begin) - shape.x;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const double y = frame.y.at(row) - shape.y;
    const LocalRow local = {.x = static_cast<float>(cosine * x + sine * y),
                            .y = static_cast<float>(cosine * y - sine * x),
                            .step_x = static_cast<float>(cosine * frame.x.step),
                            .step_y = static_cast<float>(-sine * frame.x.step),
                            .radius_px = static_cast<float>(shape.radius * frame.unit)};
    with_shape(shape.shape, [&]<Shape kShape>() { cover<kShape>(local, count, coverage.data()); });
    for (int channel = 0; channel < 3; ++channel) {
      blend(coverage.data(), count, to_signed(shape.colour[channel]),
            frame.channels[channel] + row * frame.width + columns.begin);
    }
  }
}

void check(const ClipView& view, const ClipBuffer& buffer) {
  STROBE_CHECK(view.width > 0 && view.height > 0 && view.frames > 0,
               "render: clip of {} frames {}x{}: expected 1 or more", view.frames, view.width, view.height);
  const Crop& crop = view.crop;
  STROBE_CHECK(crop.left >= 0 && crop.top >= 0 && view.shown_width() > 0 && view.shown_height() > 0 &&
                   crop.left + view.shown_width() <= view.width && crop.top + view.shown_height() <= view.height,
               "render: crop {}x{} at {},{} leaves the clip of {}x{}", view.shown_width(), view.shown_height(),
               crop.left, crop.top, view.width, view.height);
  STROBE_CHECK(buffer.data != nullptr, "render: buffer: expected memory, got null");
}

}  // namespace

ClipBuffer planes(float* data, const ClipView& view) {
  const int64_t frame = view.shown_width() * view.shown_height();
  return {.data = data, .channel_stride = view.frames * frame, .frame_stride = frame};
}

double tau_of(const ClipView& view, int64_t frame) {
  if (view.frames == 1) return view.first_tau;
  return view.first_tau +
         (view.last_tau - view.first_tau) * static_cast<double>(frame) / static_cast<double>(view.frames - 1);
}

void paint(const Backdrop& backdrop, std::span<const Placement> shapes, const ClipView& view, int64_t frame,
           const ClipBuffer& buffer) {
  check(view, buffer);
  const Frame target = frame_of(view, frame, buffer);
  std::vector<float> coverage(static_cast<size_t>(target.width));
  paint_backdrop(backdrop, target);
  for (const Placement& shape : shapes) paint_shape(shape, target, coverage);
}

void render(const Scene& scene, const ClipView& view, const ClipBuffer& buffer) {
  std::vector<Placement> placed(scene.objects.size());
  for (int64_t frame = 0; frame < view.frames; ++frame) {
    const double tau = tau_of(view, frame);
    std::transform(scene.objects.begin(), scene.objects.end(), placed.begin(),
                   [&](const SceneObject& object) { return place(object, tau); });
    paint(scene.backdrop, placed, view, frame, buffer);
  }
}

std::vector<float> render(const Scene& scene, const ClipView& view) {
  std::vector<float> pixels(static_cast<size_t>(view.elements()));
  render(scene, view, planes(pixels.data(), view));
  return pixels;
}

}  // namespace strobe::training::sprites
