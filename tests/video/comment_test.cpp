// The comment, which is known only after the last frame: it comes back whole, and the clip is the same with and without.
#include <cstdio>
#include <fstream>

#include "core/error.h"
#include "core/torch.h"
#include "tests/video/video_support.h"
#include "video/av.h"

namespace strobe::video {
namespace {

using testing::HasSubstr;

const std::vector<const char*> kContainers = {"a.mp4", "a.mkv", "a.webm", "a.avi"};
constexpr size_t kLargest = size_t{1} << 20;

// JSON of exactly this many bytes, with all that a container could trip over.
std::string json_text(size_t bytes) {
  const std::string start = "{\n\t\"seed\": 7, \"note\": \"\\\"é\\\" 漢字 🚗 = ; # \\\\ \r\n";
  const std::string end = " \"}\n";
  if (bytes < start.size() + end.size()) return std::string(bytes, '{');
  std::string text = start;
  for (size_t i = 0; text.size() + end.size() < bytes; ++i) text += static_cast<char>('a' + i % 26);
  return text + end;
}

void write_with_comment(const std::filesystem::path& path, const at::Tensor& frames, const VideoOptions& options,
                        const std::string& comment) {
  const auto writer = open_video_writer(path, options);
  writer->write(frames);
  writer->set_comment(comment);
  writer->close();
}

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Everything that a player takes from the container but the tags, as text.
std::string facts_of(const std::filesystem::path& path) {
  AVFormatContext* input = nullptr;
  check_av_io(avformat_open_input(&input, path.c_str(), nullptr, nullptr), "open");
  const AvPtr<AVFormatContext> context(input);
  check_av_io(avformat_find_stream_info(input, nullptr), "find");
  const AVStream& stream = *input->streams[0];
  const AVCodecParameters& codec = *stream.codecpar;
  std::string text = fmt::format(
      "{} streams, {} frames, starts {}, takes {}, base {}/{}, rate {}/{} {}/{}, {}x{} format {}, colour {} {} {} {} "
      "{}\n",
      input->nb_streams, stream.nb_frames, stream.start_time, stream.duration, stream.time_base.num,
      stream.time_base.den, stream.avg_frame_rate.num, stream.avg_frame_rate.den, stream.r_frame_rate.num,
      stream.r_frame_rate.den, codec.width, codec.height, codec.format, static_cast<int>(codec.color_space),
      static_cast<int>(codec.color_range), static_cast<int>(codec.color_primaries), static_cast<int>(codec.color_trc),
      static_cast<int>(codec.chroma_location));
  text += std::string(reinterpret_cast<const char*>(codec.extradata), static_cast<size_t>(codec.extradata_size));
  const AvPtr<AVPacket> packet = allocate_packet();
  while (av_read_frame(input, packet.get()) >= 0) {
    text += fmt::format("\n{} {} {} {} ", packet->pts, packet->dts, packet->duration, packet->flags);
    text += std::string(reinterpret_cast<const char*>(packet->data), static_cast<size_t>(packet->size));
    av_packet_unref(packet.get());
  }
  return text;
}

TEST(Comment, comes_back_byte_for_byte) {
  const at::Tensor frames = moving_frames(2, 32, 32);
  for (const char* file : kContainers) {
    // Around the widths of length fields and paddings.
    for (size_t bytes : {size_t{1}, size_t{2}, size_t{3}, size_t{126}, size_t{127}, size_t{128}, size_t{255},
                         size_t{16'383}, size_t{20'001}, size_t{65'536}, kLargest - 1, kLargest}) {
      const ScratchFolder folder;
      const std::string text = json_text(bytes);
      ASSERT_EQ(text.size(), bytes);
      write_with_comment(folder / file, frames, options_for(frames), text);
      EXPECT_TRUE(read_comment(folder / file) == text) << file << " " << bytes;
      EXPECT_TRUE(open_video_reader(folder / file)->info().metadata.at("comment") == text) << file << " " << bytes;
      EXPECT_EQ(folder.num_entries(), 1u);
    }
  }
}

TEST(Comment, changes_nothing_else) {
  struct Row {
    const char *file, *codec;
    FrameRate fps;
  };
  const at::Tensor frames = moving_frames(40, 48, 64);
  for (const Row& row : {Row{"a.mp4", "", {16, 1}}, Row{"a.mp4", "h264", {24000, 1001}}, Row{"a.mkv", "", {24, 1}},
                         Row{"a.mkv", "ffv1", {30, 1}}, Row{"a.mkv", "vp9", {24, 1}}, Row{"a.webm", "", {16, 1}},
                         Row{"a.webm", "vp8", {24000, 1001}}, Row{"a.avi", "", {24000, 1001}},
                         Row{"a.avi", "h264", {16, 1}}, Row{"a.avi", "ffv1", {16, 1}}}) {
    SCOPED_TRACE(std::string(row.file) + " " + row.codec);
    const ScratchFolder folder;
    VideoOptions options = options_for(frames);
    options.codec = row.codec;
    options.fps = row.fps;
    options.threads = 1;
    write_clip(folder / ("plain_" + std::string(row.file)), frames, options);
    write_with_comment(folder / row.file, frames, options, json_text(70'000));
    const std::string facts = facts_of(folder / row.file);
    EXPECT_TRUE(facts == facts_of(folder / ("plain_" + std::string(row.file))));
    EXPECT_EQ(read_comment(folder / ("plain_" + std::string(row.file))), "");
    const at::Tensor back = read_all_frames(folder / row.file);
    ASSERT_EQ(back.sizes(), frames.sizes());
    EXPECT_TRUE(std::string(row.codec) != "ffv1" || at::equal(back, frames));
  }
}

TEST(Comment, leaves_the_index_in_front) {
  const ScratchFolder folder;
  const at::Tensor frames = moving_frames(5, 32, 32);
  write_with_comment(folder / "a.mp4", frames, options_for(frames), json_text(kLargest));
  const std::string bytes = bytes_of(folder / "a.mp4");
  const size_t index = bytes.find("moov"), data = bytes.find("mdat");
  ASSERT_NE(index, std::string::npos);
  EXPECT_LT(index, data);
}

TEST(Comment, is_the_last_one_given) {
  const at::Tensor frames = moving_frames(2, 32, 32);
  for (const char* file : kContainers) {
    const ScratchFolder folder;
    const auto writer = open_video_writer(folder / file, options_for(frames));
    writer->set_comment("first");
    writer->write(frames);
    writer->set_comment("second");
    writer->close();
    EXPECT_THROW(writer->set_comment("late"), ShapeError);
    EXPECT_EQ(read_comment(folder / file), "second") << file;
    const auto without = open_video_writer(folder / file, options_for(frames));
    without->write(frames);
    without->set_comment("first");
    without->set_comment("");
    EXPECT_THROW(without->set_comment(std::string("a\0b", 3)), ShapeError);
    EXPECT_THROW(without->set_comment(std::string(kLargest + 1, 'x')), ShapeError);
    without->close();
    EXPECT_EQ(read_comment(folder / file), "") << file;
  }
}

TEST(Comment, is_ignored_by_images) {
  const ScratchFolder folder;
  const at::Tensor frames = moving_frames(2, 32, 32);
  write_with_comment(folder / "frames/", frames, options_for(frames), "text");
  EXPECT_EQ(read_comment(folder / "frames"), "");
  EXPECT_EQ(read_comment(folder / "frames/00000.png"), "");
}

TEST(Comment, is_not_read_from_what_is_no_video) {
  const ScratchFolder folder;
  EXPECT_THAT(message_of<IoError>([&] { read_comment(folder / "none.mkv"); }), HasSubstr("No such file"));
  std::ofstream(folder / "text.mp4") << std::string(5000, 'q');
  EXPECT_THAT(message_of<IoError>([&] { read_comment(folder / "text.mp4"); }), HasSubstr("Invalid data"));
  EXPECT_THAT(message_of<IoError>([&] { read_comment(folder / "none.png"); }), HasSubstr("No such file"));
  std::ofstream(folder / "empty.webm");
  message_of<IoError>([&] { read_comment(folder / "empty.webm"); });
}

TEST(Comment, that_no_longer_fits_on_the_disk_leaves_nothing) {
  const at::Tensor frames = noisy_frames(4, 32, 32);
  for (const char* file : kContainers) {
    const ScratchFolder folder;
    {
      // The frames fit, the file with the comment does not.
      const FileSizeLimit limit(kLargest / 2);
      EXPECT_THAT(message_of<IoError>(
                      [&] { write_with_comment(folder / file, frames, options_for(frames), json_text(kLargest)); }),
                  HasSubstr("File too large"))
          << file;
    }
    EXPECT_EQ(folder.num_entries(), 0u) << file;
  }
}

TEST(Comment, is_what_ffprobe_shows) {
  if (std::system("command -v ffprobe >/dev/null 2>&1") != 0) GTEST_SKIP() << "no ffprobe here";
  const at::Tensor frames = moving_frames(2, 32, 32);
  const std::string text = json_text(20'001);
  for (const char* file : kContainers) {
    const ScratchFolder folder;
    write_with_comment(folder / file, frames, options_for(frames), text);
    const std::string shown = (folder / "shown").string();
    ASSERT_EQ(std::system(("ffprobe -v error -of default=nk=1:nw=1 -show_entries format_tags=comment '" +
                           (folder / file).string() + "' >'" + shown + "'")
                              .c_str()),
              0);
    EXPECT_TRUE(bytes_of(shown) == text + "\n") << file;
  }
}

}  // namespace
}  // namespace strobe::video
