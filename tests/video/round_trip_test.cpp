#include "core/error.h"
#include "core/torch.h"
#include "tests/support/compare.h"
#include "tests/video/video_support.h"

namespace strobe::video {

at::Tensor moving_frames(int64_t frames, int64_t height, int64_t width) {
  const at::Tensor t = at::arange(frames, at::kFloat).view({-1, 1, 1}) * 0.3;
  const at::Tensor y = at::arange(height, at::kFloat).view({1, -1, 1}) * (6.28 / static_cast<double>(height));
  const at::Tensor x = at::arange(width, at::kFloat).view({1, 1, -1}) * (6.28 / static_cast<double>(width));
  const at::Tensor red = at::sin(x + t) + y * 0, green = at::cos(y + t) + x * 0, blue = at::sin(x + y - t);
  return at::stack({red, green, blue}, -1).mul(127.5).add(127.5).round().to(at::kByte).contiguous();
}

at::Tensor noisy_frames(int64_t frames, int64_t height, int64_t width) {
  const int64_t count = frames * height * width * 3;
  return (at::arange(count, at::kLong) * 2654435761 % 4294967291 % 256).to(at::kByte).view({frames, height, width, 3});
}

namespace {

struct Flat {
  uint8_t red, green, blue;
};

const std::vector<Flat> kColours = {
    {0, 0, 0},       {255, 255, 255}, {255, 0, 0},     {0, 255, 0},     {0, 0, 255},    {255, 255, 0},   {0, 255, 255},
    {255, 0, 255},   {128, 128, 128}, {1, 1, 1},       {254, 254, 254}, {64, 64, 64},   {192, 64, 32},   {32, 192, 64},
    {64, 32, 192},   {255, 128, 0},   {0, 128, 255},   {128, 0, 255},   {17, 99, 201},  {210, 180, 140}, {75, 0, 130},
    {250, 128, 114}, {12, 34, 56},    {240, 230, 140}, {139, 69, 19},   {100, 149, 237}};

at::Tensor flat_frames(const Flat& colour, int64_t height, int64_t width) {
  return at::tensor({colour.red, colour.green, colour.blue}, at::kByte).expand({3, height, width, 3}).contiguous();
}

int64_t largest_error(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kInt) - b.to(at::kInt)).abs().max().item<int64_t>();
}

struct FlatCase {
  const char* file;
  const char* codec;
  const char* pix_fmt;
  int64_t height, width;
  int limit;
};

std::ostream& operator<<(std::ostream& out, const FlatCase& row) {
  return out << row.file << " " << row.codec << " " << row.pix_fmt << " " << row.width << "x" << row.height;
}

class FlatColours : public testing::TestWithParam<FlatCase> {};

TEST_P(FlatColours, come_back_within_the_limit) {
  const FlatCase& row = GetParam();
  const ScratchFolder folder;
  std::vector<at::Tensor> parts;
  for (const Flat& colour : kColours) parts.push_back(flat_frames(colour, row.height, row.width));
  const at::Tensor frames = at::cat(parts);
  VideoOptions options = options_for(frames);
  options.codec = row.codec;
  options.pix_fmt = row.pix_fmt;
  write_clip(folder / row.file, frames, options);
  const at::Tensor back = read_all_frames(folder / row.file);
  ASSERT_EQ(back.sizes(), frames.sizes());
  int64_t worst = 0;
  for (size_t i = 0; i < kColours.size(); ++i) {
    const auto first = static_cast<int64_t>(3 * i);
    const int64_t error = largest_error(back.slice(0, first, first + 3), parts[i]);
    worst = std::max(worst, error);
    EXPECT_LE(error, row.limit) << int{kColours[i].red} << " " << int{kColours[i].green} << " "
                                << int{kColours[i].blue};
  }
  RecordProperty("worst", static_cast<int>(worst));
}

// 736 rows: the matrix that readers assume changes at 720. MPEG-4's quantiser is coarser.
INSTANTIATE_TEST_SUITE_P(Files, FlatColours,
                         testing::Values(FlatCase{"a.mp4", "", "", 48, 64, 2}, FlatCase{"a.mkv", "", "", 48, 64, 2},
                                         FlatCase{"a.mp4", "h264", "yuv444p", 33, 47, 2},
                                         FlatCase{"a.mp4", "", "", 736, 32, 2}, FlatCase{"a.webm", "", "", 48, 64, 2},
                                         FlatCase{"a.avi", "", "", 48, 64, 4}, FlatCase{"a.avi", "", "", 736, 32, 4},
                                         FlatCase{"a.mkv", "ffv1", "yuv444p", 33, 47, 2},
                                         FlatCase{"a.avi", "h264", "", 48, 64, 2}));

TEST(Lossless, keeps_every_bit) {
  const ScratchFolder folder;
  // Odd sizes: rows of any alignment.
  for (const at::Tensor& frames : {noisy_frames(5, 37, 53), noisy_frames(2, 2, 3), moving_frames(4, 48, 64)}) {
    for (const char* file : {"a.mkv", "a.avi"}) {
      VideoOptions options = options_for(frames);
      options.is_lossless = true;
      write_clip(folder / file, frames, options);
      EXPECT_TRUE(at::equal(read_all_frames(folder / file), frames)) << file;
    }
    VideoOptions options = options_for(frames);
    options.codec = "ffv1";
    write_clip(folder / "b.mkv", frames, options);
    EXPECT_TRUE(at::equal(read_all_frames(folder / "b.mkv"), frames));
    write_clip(folder / "frames/", frames, options_for(frames));
    EXPECT_TRUE(at::equal(read_all_frames(folder / "frames/"), frames));
    std::filesystem::remove_all(folder / "frames");
  }
}

TEST(Lossless, is_refused_where_it_would_not_be) {
  const ScratchFolder folder;
  VideoOptions options = {.height = 16, .width = 16, .is_lossless = true};
  EXPECT_THAT(message_of<ConfigError>([&] { check_video_options(folder / "a.mp4", options); }),
              testing::HasSubstr("use .mkv or .avi"));
  options.height = 1;
  EXPECT_THAT(message_of<ConfigError>([&] { check_video_options(folder / "a.mkv", options); }),
              testing::HasSubstr("at least 2 pixels"));
  options.height = 16;
  options.codec = "h264";
  EXPECT_THAT(message_of<ConfigError>([&] { check_video_options(folder / "a.mkv", options); }),
              testing::HasSubstr("use --codec ffv1"));
  options.codec = "ffv1";
  options.pix_fmt = "yuv444p";
  EXPECT_THAT(message_of<ConfigError>([&] { check_video_options(folder / "a.mkv", options); }),
              testing::HasSubstr("bgr0 or gbrp"));
}

TEST(Clips, come_back_with_all_frames_rate_codec_and_likeness) {
  struct Row {
    const char *file, *codec, *reads;
    FrameRate fps;
  };
  const at::Tensor frames = moving_frames(19, 64, 96);
  for (const Row& row : {Row{"a.mp4", "", "h264", {16, 1}}, Row{"a.mp4", "libx264", "h264", {24000, 1001}},
                         Row{"a.mkv", "h264", "h264", {24, 1}}, Row{"a.webm", "", "vp9", {16, 1}},
                         Row{"a.webm", "vp9", "vp9", {24, 1}}, Row{"a.mkv", "ffv1", "ffv1", {24000, 1001}},
                         Row{"a.avi", "", "mpeg4", {24000, 1001}}, Row{"a.avi", "ffv1", "ffv1", {16, 1}}}) {
    SCOPED_TRACE(std::string(row.file) + " " + row.codec);
    const ScratchFolder folder;
    VideoOptions options = options_for(frames);
    options.codec = row.codec;
    options.fps = row.fps;
    const auto writer = open_video_writer(folder / row.file, options);
    writer->write(frames.slice(0, 0, 1));
    writer->write(frames.slice(0, 1, 12));
    EXPECT_FALSE(std::filesystem::exists(folder / row.file));
    writer->write(frames.slice(0, 12));
    EXPECT_EQ(writer->frames_written(), 19);
    writer->close();
    writer->close();
    EXPECT_EQ(folder.num_entries(), 1u);

    const auto reader = open_video_reader(folder / row.file);
    EXPECT_EQ(reader->info().codec, row.reads);
    EXPECT_EQ(reader->info().height, 64);
    EXPECT_EQ(reader->info().width, 96);
    EXPECT_NEAR(reader->info().fps.per_second(), row.fps.per_second(), 1e-3);
    std::vector<at::Tensor> parts;
    for (at::Tensor part = reader->read(7); part.defined(); part = reader->read(7)) parts.push_back(part);
    EXPECT_FALSE(reader->read(1).defined());
    const at::Tensor back = at::cat(parts);
    ASSERT_EQ(back.sizes(), frames.sizes());
    EXPECT_GT(test::psnr_db(back, frames), 32.0);
  }
}

TEST(Png, names_frames_by_pattern_folder_or_single_file) {
  const at::Tensor frames = noisy_frames(12, 5, 7);
  const ScratchFolder folder;
  write_clip(folder / "clip_{frame:03}.png", frames, options_for(frames));
  EXPECT_TRUE(std::filesystem::exists(folder / "clip_011.png"));
  EXPECT_EQ(folder.num_entries(), 12u);
  EXPECT_TRUE(at::equal(read_all_frames(folder / "clip_{frame}.png"), frames));
  EXPECT_TRUE(at::equal(read_all_frames(folder.path()), frames));
  EXPECT_TRUE(at::equal(read_all_frames(folder / "clip_004.png"), frames.slice(0, 4, 5)));

  // Without padding the order is that of the numbers.
  write_clip(folder / "plain/{frame}.png", frames, options_for(frames));
  EXPECT_TRUE(at::equal(read_all_frames(folder / "plain"), frames));

  write_clip(folder / "one.png", frames.slice(0, 0, 1), options_for(frames));
  EXPECT_THAT(message_of<ConfigError>([&] { write_clip(folder / "one.png", frames, options_for(frames)); }),
              testing::HasSubstr("{frame:05}"));
  message_of<ConfigError>([&] { check_video_options(folder / "{index}.png", options_for(frames)); });
}

TEST(Resize, keeps_flat_colours_and_averages_areas) {
  const at::Tensor frames = flat_frames({10, 200, 90}, 20, 30);
  EXPECT_TRUE(at::equal(resize_frames(frames, 40, 33), flat_frames({10, 200, 90}, 40, 33)));
  EXPECT_TRUE(at::equal(resize_frames(frames, 20, 30), frames));
  const at::Tensor halves = at::tensor({0, 100}, at::kByte).view({1, 1, 2, 1}).expand({1, 2, 2, 3}).contiguous();
  EXPECT_TRUE(at::equal(resize_frames(halves, 1, 1), at::full({1, 1, 1, 3}, 50, at::kByte)));
}

TEST(FrameHash, is_sha_256_of_the_bytes_whatever_the_chunks) {
  const at::Tensor abc = at::tensor({97, 98, 99}, at::kByte).view({1, 1, 1, 3});
  FrameHash hash;
  hash.update(abc);
  EXPECT_EQ(hash.finish(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash.finish(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const at::Tensor frames = noisy_frames(6, 9, 11);
  FrameHash whole, parts;
  whole.update(frames);
  parts.update(frames.slice(0, 0, 1));
  parts.update(frames.slice(0, 1));
  EXPECT_EQ(whole.finish(), parts.finish());
}

}  // namespace
}  // namespace strobe::video
