#include "training/sprites/checker/checker.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "training/sprites/checker/object_track.h"
#include "training/sprites/checker/shape_match.h"
#include "training/sprites/shape.h"

namespace strobe::training::sprites {
namespace {

constexpr double kPi = std::numbers::pi;

struct Point {
  double x = 0, y = 0;
};
double distance(const Point& a, const Point& b) { return std::hypot(a.x - b.x, a.y - b.y); }

// A track in the units of scenes.
struct Path {
  std::vector<Point> points;
  std::vector<double> lengths;  // sqrt(area)
  std::vector<std::array<ShapeMatch, kNumShapes>> matches;
};

Path path_of(const Track& track, const ClipPixels& clip) {
  const double unit = static_cast<double>(std::min(clip.width, clip.height)) / 2;
  Path path;
  for (const Blob& blob : track) {
    path.points.push_back({(blob.x + 0.5 - static_cast<double>(clip.width) / 2) / unit,
                           (blob.y + 0.5 - static_cast<double>(clip.height) / 2) / unit});
    path.lengths.push_back(std::sqrt(blob.area) / unit);
    path.matches.push_back(match_shapes(blob));
  }
  return path;
}

Colour read_colour(const Track& track) {
  Rgb seen = {};
  for (size_t channel = 0; channel < 3; ++channel) {
    std::vector<float> values;
    for (const Blob& blob : track) values.push_back(blob.colour[channel]);
    seen[channel] = median(std::move(values));
  }
  const auto distance_to = [&](Colour colour) {
    const Rgb known = palette(colour);
    return std::hypot(seen[0] - known[0], seen[1] - known[1], seen[2] - known[2]);
  };
  auto best = Colour::kRed;
  for (int i = 1; i < kNumColours; ++i) {
    if (distance_to(static_cast<Colour>(i)) < distance_to(best)) best = static_cast<Colour>(i);
  }
  return best;
}

// Places in the track of the half with the largest area, without those at the border unless all are.
std::vector<size_t> clearest(const Track& track) {
  std::vector<size_t> places;
  for (size_t i = 0; i < track.size(); ++i) {
    if (!track[i].is_at_border) places.push_back(i);
  }
  if (places.empty()) {
    for (size_t i = 0; i < track.size(); ++i) places.push_back(i);
  }
  std::stable_sort(places.begin(), places.end(), [&](size_t a, size_t b) { return track[a].area > track[b].area; });
  places.resize((places.size() + 1) / 2);
  return places;
}

void read_shape(const Track& track, const Path& path, ObjectReading& reading) {
  const std::vector<size_t> places = clearest(track);
  for (int i = 0; i < kNumShapes; ++i) {
    double sum = 0;
    for (const size_t place : places) sum += path.matches[place][static_cast<size_t>(i)].overlap_ratio;
    const double ratio = sum / static_cast<double>(places.size());
    if (ratio > reading.overlap_ratio) {
      reading.overlap_ratio = ratio;
      reading.shape = static_cast<Shape>(i);
    }
  }
}

// `change` brought into half a period around 0.
double wrapped(double change, double period) { return change - period * std::round(change / period); }

struct PathFacts {
  double net_x = 0, net_y = 0, net = 0;
  double extent_x = 0, extent_y = 0;
  double length = 0;     // of the whole way
  double sweep = 0;      // radians about the middle of the box around the path
  double turn = 0;       // radians of the object itself
  double log_ratio = 0;  // of sqrt(area), last to first
};

PathFacts facts_of(const Path& path, Shape shape) {
  PathFacts facts;
  const size_t count = path.points.size(), eighth = std::max<size_t>(1, count / 8);
  Point first, last, low = path.points[0], high = path.points[0];
  double first_length = 0, last_length = 0;
  for (size_t i = 0; i < eighth; ++i) {
    const Point &a = path.points[i], &b = path.points[count - 1 - i];
    first.x += a.x / static_cast<double>(eighth), first.y += a.y / static_cast<double>(eighth);
    last.x += b.x / static_cast<double>(eighth), last.y += b.y / static_cast<double>(eighth);
    first_length += path.lengths[i], last_length += path.lengths[count - 1 - i];
  }
  for (const Point& point : path.points) {
    low = {std::min(low.x, point.x), std::min(low.y, point.y)};
    high = {std::max(high.x, point.x), std::max(high.y, point.y)};
  }
  const Point middle = {(low.x + high.x) / 2, (low.y + high.y) / 2};
  const double period = symmetry_period(shape);
  const auto angle_at = [&](size_t i) { return std::atan2(path.points[i].y - middle.y, path.points[i].x - middle.x); };
  const auto own_angle = [&](size_t i) { return path.matches[i][static_cast<size_t>(shape)].angle; };
  for (size_t i = 1; i < count; ++i) {
    facts.length += distance(path.points[i - 1], path.points[i]);
    facts.sweep += wrapped(angle_at(i) - angle_at(i - 1), 2 * kPi);
    if (period > 0) facts.turn += wrapped(own_angle(i) - own_angle(i - 1), period);
  }
  facts.net_x = last.x - first.x, facts.net_y = last.y - first.y;
  facts.net = distance(first, last);
  facts.extent_x = high.x - low.x, facts.extent_y = high.y - low.y;
  facts.log_ratio = std::log(last_length / first_length);
  return facts;
}

Motion direction(const PathFacts& facts) {
  if (std::fabs(facts.net_x) >= std::fabs(facts.net_y)) return facts.net_x < 0 ? Motion::kLeft : Motion::kRight;
  return facts.net_y < 0 ? Motion::kUp : Motion::kDown;
}

std::optional<Motion> read_motion(const PathFacts& f, double scale) {
  const double small = std::min(f.extent_x, f.extent_y), large = std::max(f.extent_x, f.extent_y);
  if (small > 0.3 * scale && std::fabs(f.sweep) > 1.3 * kPi) return Motion::kCircling;
  if (std::fabs(f.log_ratio) > 0.35 && f.net < 0.35 * scale) {
    return f.log_ratio > 0 ? Motion::kGrowing : Motion::kShrinking;
  }
  if (f.net > 0.35 * scale && f.net > 0.7 * large) return direction(f);
  if (f.extent_y > 0.3 * scale && f.extent_x < 0.6 * f.extent_y && f.length > 1.5 * f.extent_y) {
    return Motion::kBouncing;
  }
  if (std::fabs(f.turn) > 1.7) return Motion::kSpinning;
  if (large < 0.2 * scale) return Motion::kStill;
  return std::nullopt;
}

void read_size(const Path& path, double scale, ObjectReading& reading) {
  const bool has_changed = reading.motion == Motion::kGrowing || reading.motion == Motion::kShrinking;
  const double length = has_changed ? *std::max_element(path.lengths.begin(), path.lengths.end())
                                    : median({path.lengths.begin(), path.lengths.end()});
  reading.radius = length / std::sqrt(unit_area(reading.shape));
  reading.size = reading.radius < 0.355 * scale ? Size::kSmall : Size::kLarge;
}

ObjectReading read_object(const Track& track, const ClipPixels& clip, double scale) {
  const Path path = path_of(track, clip);
  ObjectReading reading{.colour = read_colour(track)};
  reading.presence_ratio = static_cast<double>(track.size()) / static_cast<double>(clip.frames);
  read_shape(track, path, reading);
  reading.motion = read_motion(facts_of(path, reading.shape), scale);
  read_size(path, scale, reading);
  return reading;
}

// The median over time of a pixel: its level, and whether it is colourful.
struct StillPixel {
  float level = 0;
  bool is_grey = true;
};
StillPixel still_pixel(const ClipPixels& clip, int64_t row, int64_t column) {
  constexpr float kColourful = 0.25F;
  Rgb colour = {};
  std::vector<float> values(static_cast<size_t>(clip.frames));
  for (int64_t channel = 0; channel < 3; ++channel) {
    for (int64_t frame = 0; frame < clip.frames; ++frame) {
      const int64_t at = ((frame * clip.height + row) * clip.width + column) * 3 + channel;
      values[static_cast<size_t>(frame)] = clip.rgb[static_cast<size_t>(at)];
    }
    colour[static_cast<size_t>(channel)] = median(values);
  }
  const auto [low, high] = std::minmax_element(colour.begin(), colour.end());
  return {(colour[0] + colour[1] + colour[2]) / 3, *high - *low < kColourful};
}

double mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

Background read_background(const ClipPixels& clip) {
  const int64_t depth = std::max<int64_t>(1, std::min(clip.height, clip.width) / 32);
  std::vector<float> border, above, below;
  for (int64_t row = 0; row < clip.height; ++row) {
    const bool is_above = row < depth, is_below = row >= clip.height - depth;
    for (int64_t column = 0; column < clip.width; ++column) {
      if (!is_above && !is_below && column >= depth && column < clip.width - depth) continue;
      const StillPixel pixel = still_pixel(clip, row, column);
      if (!pixel.is_grey) continue;
      border.push_back(pixel.level);
      if (is_above) above.push_back(pixel.level);
      if (is_below) below.push_back(pixel.level);
    }
  }
  if (mean(below) - mean(above) > 0.3) return Background::kGradient;
  double squares = 0;
  const double middle = mean(border);
  for (const float level : border) squares += (level - middle) * (level - middle);
  if (std::sqrt(squares / std::max<double>(1, static_cast<double>(border.size()))) > 0.09) {
    return Background::kCheckered;
  }
  const float level = median(border);
  return level < 0.22F ? Background::kBlack : level < 0.68F ? Background::kGray : Background::kWhite;
}

void check(const ClipPixels& clip) {
  STROBE_CHECK(clip.frames > 0 && clip.height > 0 && clip.width > 0 &&
                   clip.rgb.size() == static_cast<size_t>(clip.frames * clip.height * clip.width * 3),
               "read_clip: clip of {} frames {}x{}: {} values", clip.frames, clip.width, clip.height, clip.rgb.size());
  // Sorting by value has no order for it.
  STROBE_CHECK(std::none_of(clip.rgb.begin(), clip.rgb.end(), [](float value) { return std::isnan(value); }),
               "read_clip: the clip holds NaN");
}

template <class Value>
std::optional<bool> is_right(const std::optional<Value>& named, const std::optional<Value>& read) {
  if (!named) return std::nullopt;
  return read == named;
}

// Verdicts on one object; `read` is null for an object that is not there.
Verdict judge_object(const NamedObject& named, const ObjectReading* read) {
  using std::optional;
  Verdict verdict;
  verdict.size = is_right(named.size, read ? optional(read->size) : std::nullopt);
  verdict.colour = is_right(named.colour, read ? optional(read->colour) : std::nullopt);
  verdict.shape = is_right(named.shape, read ? optional(read->shape) : std::nullopt);
  verdict.motion = is_right(named.motion, read ? read->motion : std::nullopt);
  return verdict;
}

std::optional<bool> both(const std::optional<bool>& a, const std::optional<bool>& b) {
  if (!a || !b) return a ? a : b;
  return *a && *b;
}

std::array<std::optional<bool>, 6> all_of(const Verdict& v) {
  return {v.count, v.size, v.colour, v.shape, v.motion, v.background};
}

int right_ones(const Verdict& verdict) {
  int count = 0;
  for (const std::optional<bool>& one : all_of(verdict)) count += one.value_or(false) ? 1 : 0;
  return count;
}

// Named object i against read object i, or against the other one of two.
Verdict judge_in_order(const Reading& reading, const NamedAttributes& named, bool is_swapped) {
  Verdict verdict;
  for (size_t i = 0; i < named.objects.size(); ++i) {
    const size_t at = is_swapped ? 1 - i : i;
    const Verdict one = judge_object(named.objects[i], at < reading.objects.size() ? &reading.objects[at] : nullptr);
    verdict.size = both(verdict.size, one.size);
    verdict.colour = both(verdict.colour, one.colour);
    verdict.shape = both(verdict.shape, one.shape);
    verdict.motion = both(verdict.motion, one.motion);
  }
  return verdict;
}

}  // namespace

ClipPixels from_bytes(std::span<const uint8_t> frames, int64_t count, int64_t height, int64_t width) {
  ClipPixels clip{.frames = count, .height = height, .width = width, .rgb = std::vector<float>(frames.size())};
  std::transform(frames.begin(), frames.end(), clip.rgb.begin(),
                 [](uint8_t value) { return static_cast<float>(value) / 255.0F; });
  check(clip);
  return clip;
}

ClipPixels from_planes(std::span<const float> pixels, int64_t count, int64_t height, int64_t width) {
  ClipPixels clip{.frames = count, .height = height, .width = width, .rgb = std::vector<float>(pixels.size())};
  check(clip);
  const auto plane = static_cast<size_t>(count * height * width);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t channel = 0; channel < 3; ++channel) {
      clip.rgb[3 * i + channel] = std::clamp((pixels[channel * plane + i] + 1) / 2, 0.0F, 1.0F);
    }
  }
  return clip;
}

Reading read_clip(const ClipPixels& clip, int max_objects) {
  check(clip);
  Reading reading{.objects = {}, .background = read_background(clip)};
  const std::vector<Track> tracks = find_tracks(clip, max_objects);
  const double scale = tracks.size() > 1 ? kScaleOfTwo : 1.0;
  for (const Track& track : tracks) reading.objects.push_back(read_object(track, clip, scale));
  return reading;
}

bool Verdict::is_all_right() const {
  const auto verdicts = all_of(*this);
  return is_present && std::all_of(verdicts.begin(), verdicts.end(),
                                   [](const std::optional<bool>& one) { return one.value_or(true); });
}

Verdict judge(const Reading& reading, const NamedAttributes& named) {
  Verdict verdict = judge_in_order(reading, named, /*is_swapped=*/false);
  if (named.objects.size() == 2) {
    const Verdict other = judge_in_order(reading, named, /*is_swapped=*/true);
    if (right_ones(other) > right_ones(verdict)) verdict = other;
  }
  verdict.is_present = named.objects.empty() || !reading.objects.empty();
  if (named.objects.size() > 1) verdict.count = named.objects.size() == reading.objects.size();
  if (named.background) verdict.background = reading.background == *named.background;
  return verdict;
}

}  // namespace strobe::training::sprites
