// Frames as PNG files, each complete under its name as soon as it is there.
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "core/error.h"
#include "core/torch.h"
#include "video/frame_pattern.h"
#include "video/writers.h"

namespace strobe::video {
namespace {

struct PngTarget {
  std::filesystem::path folder;
  std::optional<FramePattern> pattern;
  std::string single_name;  // without a pattern

  std::filesystem::path file(int64_t frame) const { return folder / (pattern ? pattern->name(frame) : single_name); }
};

PngTarget png_target(const std::filesystem::path& path) {
  if (!path.has_filename()) return {path.parent_path(), parse_frame_pattern("{frame:05}.png"), ""};
  return {folder_of(path), parse_frame_pattern(path.filename().string()), path.filename().string()};
}

std::string encode_png(const uint8_t* pixels, const VideoOptions& options) {
  const cv::Mat rgb(static_cast<int>(options.height), static_cast<int>(options.width), CV_8UC3,
                    const_cast<uint8_t*>(pixels));
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  std::vector<uchar> bytes;
  if (!cv::imencode(".png", bgr, bytes)) throw IoError("PNG encoding failed");
  return {bytes.begin(), bytes.end()};
}

class PngWriter final : public VideoWriter {
 public:
  PngWriter(const std::filesystem::path& path, const VideoOptions& options)
      : target_(png_target(path)), options_(options) {
    std::error_code error;
    made_folder_ = std::filesystem::create_directory(target_.folder, error);
    if (error) throw IoError(fmt::format("{}: mkdir: {}", target_.folder.string(), error.message()));
  }
  ~PngWriter() override {
    if (is_closed_) return;
    std::error_code ignored;
    for (int64_t i = 0; i < frames_; ++i) std::filesystem::remove(target_.file(i), ignored);
    // Removes an empty folder only.
    if (made_folder_) std::filesystem::remove(target_.folder, ignored);
  }

  void write(const at::Tensor& frames) override {
    STROBE_CHECK(!is_closed_, "VideoWriter: {}: written to after close", target_.folder.string());
    const at::Tensor bytes = checked_frames(frames, options_);
    if (!target_.pattern && frames_ + bytes.size(0) > 1) {
      throw ConfigError(
          fmt::format("{}: holds one frame; for more use a name with {{frame:05}} or a folder ending in '/'",
                      target_.file(0).string()));
    }
    for (int64_t i = 0; i < bytes.size(0); ++i) {
      write_file(target_.file(frames_), encode_png(bytes[i].data_ptr<uint8_t>(), options_), replace_of(options_));
      ++frames_;
    }
  }

  void set_comment(const std::string& /*text*/) override {}

  void close() override {
    if (is_closed_) return;
    STROBE_CHECK(frames_ > 0, "VideoWriter: {}: closed without a frame", target_.folder.string());
    is_closed_ = true;
  }

  int64_t frames_written() const override { return frames_; }
  std::string encoder() const override { return "png rgb24"; }

 private:
  PngTarget target_;
  VideoOptions options_;
  int64_t frames_ = 0;
  bool made_folder_ = false;
  bool is_closed_ = false;
};

}  // namespace

bool is_png_output(const std::filesystem::path& path) {
  if (path.empty()) return false;
  if (!path.has_filename()) return true;
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".png";
}

void check_png_writer(const std::filesystem::path& path, const VideoOptions& options) {
  if (!options.codec.empty() && options.codec != "png") {
    throw ConfigError(fmt::format("codec '{}': PNG frames have none; leave --codec out", options.codec));
  }
  if (!options.pix_fmt.empty() && options.pix_fmt != "rgb24") {
    throw ConfigError(fmt::format("pixel format '{}': PNG frames are rgb24; leave --pix-fmt out", options.pix_fmt));
  }
  if (options.crf >= 0) throw ConfigError("crf: PNG frames have none; leave --crf out");
  const PngTarget target = png_target(path);
  // The frames' own folder is made, what lies around it must be there.
  check_folder_writable(std::filesystem::exists(target.folder) ? target.folder : folder_of(target.folder));
}

std::filesystem::path existing_png(const std::filesystem::path& path) {
  const PngTarget target = png_target(path);
  std::error_code error;
  if (!target.pattern) return std::filesystem::exists(std::filesystem::symlink_status(path, error)) ? path : "";
  for (std::filesystem::directory_iterator entry(target.folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (target.pattern->frame_of(entry->path().filename().string())) return entry->path();
  }
  return {};
}

std::unique_ptr<VideoWriter> make_png_writer(const std::filesystem::path& path, const VideoOptions& options) {
  return std::make_unique<PngWriter>(path, options);
}

}  // namespace strobe::video
