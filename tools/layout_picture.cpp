#include "tools/layout_picture.h"

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "video/video_writer.h"

namespace strobe::tools {
namespace {

constexpr int64_t kTextColumns = 64;
constexpr int64_t kTextRows = 48;
constexpr int64_t kPicturePixels = 512;  // smaller layouts are magnified to about this

// Share of each pair that is computed.
at::Tensor weights_of(const at::Tensor& level) {
  const at::Tensor f = level.to(at::kFloat);
  return at::where(f > 0, f.clamp_min(1).reciprocal(), at::zeros_like(f));
}

}  // namespace

std::string layout_text(const at::Tensor& level) {
  const int64_t rows = std::min(kTextRows, level.size(0)), cols = std::min(kTextColumns, level.size(1));
  const at::Tensor shares =
      at::adaptive_avg_pool2d(weights_of(level).unsqueeze(0).unsqueeze(0), {rows, cols}).squeeze(0).squeeze(0);
  const auto share = shares.accessor<float, 2>();
  std::string text;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float s = share[r][c];
      text += s <= 0 ? ' ' : s < 1.0F / 3 ? '.' : s < 2.0F / 3 ? ':' : s < 0.999F ? '*' : '#';
    }
    text += "\n";
  }
  return text;
}

void save_layout_picture(const std::filesystem::path& path, const at::Tensor& level, bool may_overwrite) {
  if (path.extension() != ".png") throw ConfigError(path.string() + ": a picture of a layout is a .png file");
  const at::Tensor rgb = at::zeros({level.size(0), level.size(1), 3}, at::kByte);
  const auto paint = [&](int factor, const std::vector<uint8_t>& colour) {
    rgb.index_put_({level == factor}, at::tensor(colour, at::kByte));
  };
  paint(1, {255, 255, 255});
  paint(2, {150, 190, 255});
  paint(4, {80, 120, 220});
  paint(8, {40, 60, 140});
  const int64_t times = std::max<int64_t>(1, kPicturePixels / std::max(level.size(0), level.size(1)));
  const at::Tensor frame = rgb.repeat_interleave(times, 0).repeat_interleave(times, 1).unsqueeze(0).contiguous();
  const auto writer =
      video::open_video_writer(path, {.height = frame.size(1), .width = frame.size(2), .may_overwrite = may_overwrite});
  writer->write(frame);
  writer->close();
}

}  // namespace strobe::tools
