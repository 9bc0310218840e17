#include "training/sprites/checker/object_track.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

namespace strobe::training::sprites {
namespace {

constexpr float kMinChroma = 0.25F;
// Of the frame, for an object alone and for one of two.
constexpr double kMinShare = 0.004, kMinShareOfTwo = 0.0015;
// The chroma of the object shows in the percentile of a little more than its least share: 99.5 % for one alone.
constexpr double kPercentileShare = 1.25;
constexpr double kMinPresence = 0.8;
constexpr int kReachPx = 2;

float chroma_of(float r, float g, float b) { return std::max({r, g, b}) - std::min({r, g, b}); }

cv::Mat chroma_image(const cv::Mat& rgb) {
  cv::Mat chroma(rgb.rows, rgb.cols, CV_32F);
  for (int row = 0; row < rgb.rows; ++row) {
    const auto* in = rgb.ptr<cv::Vec3f>(row);
    auto* out = chroma.ptr<float>(row);
    for (int column = 0; column < rgb.cols; ++column) {
      out[column] = chroma_of(in[column][0], in[column][1], in[column][2]);
    }
  }
  return chroma;
}

float percentile(const cv::Mat& image, double share) {
  std::vector<float> values(image.begin<float>(), image.end<float>());
  const auto at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

cv::Mat dilated(const cv::Mat& mask, int reach) {
  cv::Mat wide;
  cv::dilate(mask, wide, cv::getStructuringElement(cv::MORPH_RECT, {2 * reach + 1, 2 * reach + 1}));
  return wide;
}

// The largest component above the threshold as a mask; empty if it is too small.
cv::Mat largest_component(const cv::Mat& chroma, float threshold, double min_pixels) {
  cv::Mat labels, stats, centroids;
  const int count = cv::connectedComponentsWithStats(chroma > threshold, labels, stats, centroids, /*connectivity=*/4);
  int best = 0, best_area = 0;
  for (int label = 1; label < count; ++label) {
    const int area = stats.at<int>(label, cv::CC_STAT_AREA);
    if (area > best_area) best = label, best_area = area;
  }
  if (best == 0 || best_area < min_pixels) return {};
  return labels == best;
}

// Values of an image where a mask is set.
std::vector<float> values_in(const cv::Mat& image, const cv::Mat& mask) {
  std::vector<float> values;
  for (int row = 0; row < image.rows; ++row) {
    for (int column = 0; column < image.cols; ++column) {
      if (mask.at<uint8_t>(row, column) != 0) values.push_back(image.at<float>(row, column));
    }
  }
  return values;
}

Rgb median_colour(const cv::Mat& rgb, const cv::Mat& mask) {
  std::array<std::vector<float>, 3> channels;
  for (int row = 0; row < rgb.rows; ++row) {
    for (int column = 0; column < rgb.cols; ++column) {
      if (mask.at<uint8_t>(row, column) == 0) continue;
      for (int channel = 0; channel < 3; ++channel) {
        channels[static_cast<size_t>(channel)].push_back(rgb.at<cv::Vec3f>(row, column)[channel]);
      }
    }
  }
  return {median(channels[0]), median(channels[1]), median(channels[2])};
}

bool is_at_border(const cv::Mat& mask) {
  const cv::Rect box = cv::boundingRect(mask);
  return box.x == 0 || box.y == 0 || box.x + box.width == mask.cols || box.y + box.height == mask.rows;
}

// The object of a frame, and the pixels around it taken out of `chroma`.
std::optional<Blob> take_blob(const cv::Mat& rgb, cv::Mat& chroma, double min_share) {
  const float top = percentile(chroma, 1 - kPercentileShare * min_share);
  if (top < kMinChroma) return std::nullopt;
  const cv::Mat mask = largest_component(chroma, 0.5F * top, min_share * static_cast<double>(chroma.total()));
  if (mask.empty()) return std::nullopt;
  const cv::Scalar mean = cv::mean(rgb, mask);
  if (chroma_of(static_cast<float>(mean[0]), static_cast<float>(mean[1]), static_cast<float>(mean[2])) < kMinChroma) {
    return std::nullopt;
  }
  const cv::Mat near = dilated(mask, kReachPx);
  Blob blob;
  const cv::Mat scaled = cv::min(chroma / median(values_in(chroma, mask)), 1.0);
  blob.soft = cv::Mat::zeros(chroma.size(), CV_32F);
  scaled.copyTo(blob.soft, near);
  const cv::Moments moments = cv::moments(blob.soft);
  blob.area = moments.m00;
  blob.x = moments.m10 / moments.m00;
  blob.y = moments.m01 / moments.m00;
  blob.colour = median_colour(rgb, blob.soft > 0.9);
  blob.is_at_border = is_at_border(mask);
  chroma.setTo(0, dilated(mask, kReachPx + 1));
  return blob;
}

double distance(const Rgb& a, const Rgb& b) { return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]); }

double median_area(const Track& track) {
  std::vector<float> areas;
  for (const Blob& blob : track) areas.push_back(static_cast<float>(blob.area));
  return median(areas);
}

// Frames in which two objects were found say their colours; what a frame has goes to the nearer one.
std::vector<Track> split_by_colour(const std::vector<std::vector<Blob>>& found) {
  std::vector<Track> tracks(2);
  const auto both = std::find_if(found.begin(), found.end(), [](const auto& blobs) { return blobs.size() == 2; });
  const Rgb first = (*both)[0].colour, second = (*both)[1].colour;
  for (const std::vector<Blob>& blobs : found) {
    if (blobs.size() == 2) {
      const bool is_swapped = distance(blobs[0].colour, second) + distance(blobs[1].colour, first) <
                              distance(blobs[0].colour, first) + distance(blobs[1].colour, second);
      tracks[0].push_back(blobs[is_swapped ? 1 : 0]);
      tracks[1].push_back(blobs[is_swapped ? 0 : 1]);
    } else if (blobs.size() == 1) {
      const bool is_second = distance(blobs[0].colour, second) < distance(blobs[0].colour, first);
      tracks[is_second ? 1 : 0].push_back(blobs[0]);
    }
  }
  return tracks;
}

}  // namespace

float median(std::vector<float> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<Track> find_tracks(const ClipPixels& clip, int max_objects) {
  const auto height = static_cast<int>(clip.height), width = static_cast<int>(clip.width);
  const double needed = kMinPresence * static_cast<double>(clip.frames);
  std::vector<std::vector<Blob>> found(static_cast<size_t>(clip.frames));
  int64_t with_two = 0;
  for (int64_t frame = 0; frame < clip.frames; ++frame) {
    // OpenCV has no view of const memory; nothing writes to it.
    const cv::Mat rgb(height, width, CV_32FC3,
                      const_cast<float*>(clip.rgb.data() + frame * clip.height * clip.width * 3));
    cv::Mat chroma = chroma_image(rgb);
    std::vector<Blob>& blobs = found[static_cast<size_t>(frame)];
    for (int i = 0; i < max_objects; ++i) {
      std::optional<Blob> blob = take_blob(rgb, chroma, max_objects == 1 ? kMinShare : kMinShareOfTwo);
      if (!blob) break;
      blob->frame = frame;
      blobs.push_back(std::move(*blob));
    }
    with_two += blobs.size() == 2 ? 1 : 0;
  }
  if (static_cast<double>(with_two) >= needed) {
    std::vector<Track> tracks = split_by_colour(found);
    if (median_area(tracks[0]) < median_area(tracks[1])) std::swap(tracks[0], tracks[1]);
    return tracks;
  }
  Track track;
  for (std::vector<Blob>& blobs : found) {
    if (!blobs.empty()) track.push_back(std::move(blobs[0]));
  }
  if (track.empty() || static_cast<double>(track.size()) < needed) return {};
  return {std::move(track)};
}

}  // namespace strobe::training::sprites
