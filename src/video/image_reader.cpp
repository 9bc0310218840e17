// Images as frames, in the order of the numbers in their names.
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "core/error.h"
#include "core/output_file.h"
#include "core/torch.h"
#include "video/frame_pattern.h"
#include "video/readers.h"

namespace strobe::video {
namespace {

bool is_image_name(const std::filesystem::path& path) {
  constexpr std::array<const char*, 7> kExtensions = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"};
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Runs of digits compare as numbers: frame2 before frame10.
bool naturally_less(const std::string& a, const std::string& b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!is_digit(a[i]) || !is_digit(b[j])) {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
      continue;
    }
    const auto number = [](const std::string& text, size_t& at) {
      while (at < text.size() && text[at] == '0') ++at;
      const size_t start = at;
      while (at < text.size() && is_digit(text[at])) ++at;
      return text.substr(start, at - start);
    };
    const std::string x = number(a, i), y = number(b, j);
    if (x.size() != y.size()) return x.size() < y.size();
    if (x != y) return x < y;
  }
  // Equal numbers with other zeros: any fixed order.
  const size_t rest_a = a.size() - i, rest_b = b.size() - j;
  return rest_a != rest_b ? rest_a < rest_b : a < b;
}

std::vector<std::filesystem::path> list_images(const std::filesystem::path& path) {
  const bool is_folder = std::filesystem::is_directory(path);
  const auto pattern = is_folder ? std::nullopt : parse_frame_pattern(path.filename().string());
  if (!is_folder && !pattern) return {path};
  const std::filesystem::path folder = is_folder ? path : folder_of(path);
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(".") || !is_image_name(name) || (pattern && !pattern->frame_of(name))) continue;
    files.push_back(entry->path());
  }
  if (error) throw IoError(fmt::format("{}: {}", folder.string(), error.message()));
  if (files.empty()) throw IoError(fmt::format("{}: no images (png, jpg, bmp, webp, tif)", path.string()));
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return naturally_less(a.filename().string(), b.filename().string()); });
  return files;
}

class ImageReader final : public VideoReader {
 public:
  explicit ImageReader(const std::filesystem::path& path) : files_(list_images(path)) {
    const cv::Mat first = load(files_.front());
    info_.height = first.rows;
    info_.width = first.cols;
    info_.codec = "image";
  }

  const VideoInfo& info() const override { return info_; }

  at::Tensor read(int64_t max_frames) override {
    STROBE_CHECK(max_frames > 0, "VideoReader: max_frames: expected at least 1, got {}", max_frames);
    const auto count = std::min(max_frames, static_cast<int64_t>(files_.size() - next_));
    if (count == 0) return {};
    at::Tensor frames = at::empty({count, info_.height, info_.width, 3}, at::kByte);
    for (int64_t i = 0; i < count; ++i) {
      const std::filesystem::path& file = files_[next_++];
      const cv::Mat bgr = load(file);
      if (bgr.rows != info_.height || bgr.cols != info_.width) {
        throw IoError(fmt::format("{}: {}x{}, but the first image is {}x{}", file.string(), bgr.cols, bgr.rows,
                                  info_.width, info_.height));
      }
      cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, frames[i].data_ptr<uint8_t>());
      cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
    }
    return frames;
  }

 private:
  static cv::Mat load(const std::filesystem::path& file) {
    std::error_code error;
    if (!std::filesystem::exists(file, error)) {
      throw IoError(fmt::format("{}: {}", file.string(), std::generic_category().message(ENOENT)));
    }
    cv::Mat image;
    try {
      image = cv::imread(file.string(), cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
    } catch (const cv::Exception& exception) {
      throw IoError(fmt::format("{}: {}", file.string(), exception.err));
    }
    if (image.empty()) throw IoError(fmt::format("{}: not an image that can be read", file.string()));
    return image;
  }

  std::vector<std::filesystem::path> files_;
  VideoInfo info_;
  size_t next_ = 0;
};

}  // namespace

bool is_image_input(const std::filesystem::path& path) {
  return std::filesystem::is_directory(path) || is_image_name(path);
}

std::unique_ptr<VideoReader> make_image_reader(const std::filesystem::path& path) {
  return std::make_unique<ImageReader>(path);
}

}  // namespace strobe::video
