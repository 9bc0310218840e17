#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "core/error.h"
#include "core/log.h"
#include "core/torch.h"
#include "tests/video/video_support.h"

namespace strobe::video {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const VideoOptions kSmall = {.height = 32, .width = 48, .threads = 1};

std::string refusal(const std::filesystem::path& path, const VideoOptions& options) {
  return message_of<Error>([&] { check_video_options(path, options); });
}

VideoOptions with(void (*change)(VideoOptions&)) {
  VideoOptions options = kSmall;
  change(options);
  return options;
}

TEST(VideoOptions, are_refused_before_a_file_exists) {
  const ScratchFolder folder;
  EXPECT_THAT(refusal(folder / "a.gif", kSmall), AllOf(HasSubstr("unknown extension '.gif'"), HasSubstr(".webm")));
  EXPECT_THAT(refusal(folder / "a.mp4", with([](auto& o) { o.codec = "h265x"; })),
              AllOf(HasSubstr("no encoder 'h265x'"), HasSubstr("libx264")));
  EXPECT_THAT(refusal(folder / "a.webm", with([](auto& o) { o.codec = "h264"; })),
              AllOf(HasSubstr("cannot hold h264"), HasSubstr("libvpx-vp9")));
  EXPECT_THAT(refusal(folder / "a.mp4", with([](auto& o) { o.pix_fmt = "bgr0"; })),
              AllOf(HasSubstr("libx264 does not take it"), HasSubstr("yuv444p")));
  EXPECT_THAT(refusal(folder / "a.mp4", with([](auto& o) { o.pix_fmt = "nonsense"; })), HasSubstr("yuv420p"));
  EXPECT_THAT(refusal(folder / "a.mp4", with([](auto& o) { o.crf = 52; })), HasSubstr("expected 0 to 51"));
  EXPECT_THAT(refusal(folder / "a.avi", with([](auto& o) { o.crf = 18; })), HasSubstr("no constant rate factor"));
  EXPECT_THAT(refusal(folder / "a.mp4", with([](auto& o) { o.width = 47; })),
              AllOf(HasSubstr("47x32"), HasSubstr("--pix-fmt yuv444p or an even size")));
  EXPECT_THAT(refusal(folder / "a.webm", with([](auto& o) { o.height = 31; })), HasSubstr("--pix-fmt yuv444p"));
  EXPECT_THAT(refusal(folder / "a.avi", with([](auto& o) { o.height = 31; })), HasSubstr("use an even size"));
  EXPECT_THAT(refusal(folder / "a.mp4", with([](auto& o) { o.height = 0; })), HasSubstr("48x0"));
  EXPECT_THAT(refusal(folder / "a.mp4", with([](auto& o) { o.fps = {0, 1}; })), HasSubstr("fps 0/1"));
  EXPECT_THAT(refusal(folder / "a.png", with([](auto& o) { o.codec = "h264"; })), HasSubstr("PNG"));
  EXPECT_THAT(refusal(folder / "a.png", with([](auto& o) { o.crf = 3; })), HasSubstr("PNG"));
  EXPECT_EQ(folder.num_entries(), 0u);
}

TEST(VideoOptions, name_the_exit_code_by_the_kind_of_refusal) {
  const ScratchFolder folder;
  message_of<ConfigError>([&] { check_video_options(folder / "a", kSmall); });
  message_of<ConfigError>([&] { check_video_options(folder / "a.mp4", with([](auto& o) { o.width = 47; })); });
  message_of<UnsupportedError>([&] { check_video_options(folder / "a.mp4", with([](auto& o) { o.codec = "x"; })); });
  message_of<UnsupportedError>([&] { check_video_options(folder / "a.mp4", with([](auto& o) { o.pix_fmt = "x"; })); });
  message_of<IoError>([&] { check_video_options(folder / "none/a.mp4", kSmall); });
}

TEST(VideoOptions, are_what_really_ran) {
  const ScratchFolder folder;
  EXPECT_EQ(open_video_writer(folder / "a.mp4", kSmall)->encoder(), "libx264 yuv420p crf 18");
  EXPECT_EQ(open_video_writer(folder / "a.webm", kSmall)->encoder(), "libvpx-vp9 yuv420p crf 30");
  EXPECT_EQ(open_video_writer(folder / "a.avi", kSmall)->encoder(), "mpeg4 yuv420p");
  EXPECT_EQ(open_video_writer(folder / "a.mkv", with([](auto& o) { o.is_lossless = true; }))->encoder(), "ffv1 bgr0");
  EXPECT_EQ(open_video_writer(folder / "a.MP4", with([](auto& o) {
                                o.crf = 0;
                                o.pix_fmt = "yuv444p";
                              }))
                ->encoder(),
            "libx264 yuv444p crf 0");
  EXPECT_EQ(open_video_writer(folder / "f/", kSmall)->encoder(), "png rgb24");
  EXPECT_EQ(folder.num_entries(), 0u) << "destroyed without close";
  EXPECT_THAT(available_encoders("a.mkv"), testing::Contains("ffv1"));
  EXPECT_THAT(available_encoders("a.mp4"), testing::Not(testing::Contains("ffv1")));
  EXPECT_FALSE(ffmpeg_version().empty());
}

TEST(VideoWriter, leaves_nothing_behind_without_close) {
  const ScratchFolder folder;
  for (const char* name : {"a.mp4", "a.mkv", "frames/", "p_{frame:02}.png"}) {
    const auto writer = open_video_writer(folder / name, kSmall);
    writer->write(moving_frames(3, 32, 48));
    EXPECT_GT(folder.num_entries(), 0u) << name;
  }
  EXPECT_EQ(folder.num_entries(), 0u);
}

TEST(VideoWriter, keeps_the_old_file_until_the_new_one_is_complete) {
  const ScratchFolder folder;
  write_clip(folder / "a.mkv", moving_frames(2, 32, 48), kSmall);
  {
    const auto writer = open_video_writer(folder / "a.mkv", kSmall);
    writer->write(moving_frames(3, 32, 48));
  }
  EXPECT_EQ(read_all_frames(folder / "a.mkv").size(0), 2);
  write_clip(folder / "a.mkv", moving_frames(3, 32, 48), kSmall);
  EXPECT_EQ(read_all_frames(folder / "a.mkv").size(0), 3);
}

TEST(VideoWriter, replaces_nothing_that_it_may_not) {
  VideoOptions options = kSmall;
  options.may_overwrite = false;
  for (const char* name : {"a.mp4", "a.mkv", "one.png", "f_{frame:02}.png"}) {
    const ScratchFolder folder;
    const auto writer = open_video_writer(folder / name, options);
    const bool is_pattern = name[0] == 'f';
    const std::filesystem::path appears = is_pattern ? folder / "f_00.png" : folder / name;
    std::ofstream(appears) << "mine";
    EXPECT_THAT(message_of<IoError>([&] {
                  writer->write(moving_frames(1, 32, 48));
                  writer->close();
                }),
                AllOf(HasSubstr(appears.string()), HasSubstr("another program made it meanwhile")));
    EXPECT_THAT(message_of<ConfigError>([&] { check_video_options(folder / name, options); }),
                AllOf(HasSubstr(appears.string()), HasSubstr("--overwrite")));
    check_video_options(folder / name, kSmall);
  }
  // Of the frames, only those that were ours go.
  const ScratchFolder folder;
  {
    const auto writer = open_video_writer(folder / "frames/", options);
    writer->write(moving_frames(1, 32, 48));
    std::ofstream(folder / "frames/00001.png") << "mine";
    EXPECT_THROW(writer->write(moving_frames(1, 32, 48)), IoError);
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "frames/00000.png"));
  EXPECT_TRUE(std::filesystem::exists(folder / "frames/00001.png"));
}

TEST(VideoWriter, removes_what_could_not_replace) {
  const ScratchFolder folder;
  VideoOptions options = kSmall;
  options.may_overwrite = false;
  {
    const auto writer = open_video_writer(folder / "a.mkv", options);
    writer->write(moving_frames(1, 32, 48));
    std::ofstream(folder / "a.mkv") << "mine";
    EXPECT_THROW(writer->close(), IoError);
  }
  EXPECT_EQ(folder.num_entries(), 1u);
  EXPECT_EQ(std::filesystem::file_size(folder / "a.mkv"), 4u);
}

TEST(VideoWriter, refuses_wrong_frames_and_empty_clips) {
  const ScratchFolder folder;
  for (const char* name : {"a.mp4", "frames/"}) {
    const auto writer = open_video_writer(folder / name, kSmall);
    EXPECT_THROW(writer->write(moving_frames(1, 32, 46)), ShapeError);
    EXPECT_THROW(writer->write(moving_frames(1, 32, 48).to(at::kFloat)), ShapeError);
    EXPECT_THROW(writer->close(), ShapeError);
  }
}

TEST(VideoWriter, tells_why_a_folder_cannot_be_written) {
  const ScratchFolder folder;
  EXPECT_THAT(refusal(folder / "none/a.mp4", kSmall), AllOf(HasSubstr("none"), HasSubstr("No such file")));
  EXPECT_THAT(refusal(folder / "none/none/", kSmall), HasSubstr("No such file"));
  std::ofstream(folder / "file") << "x";
  EXPECT_THAT(refusal(folder / "file/a.mp4", kSmall), HasSubstr("Not a directory"));
  std::filesystem::create_directory(folder / "b.mp4");
  EXPECT_THAT(refusal(folder / "b.mp4", kSmall), HasSubstr("Is a directory"));
  // The check passes for the superuser, and the kernel refuses the file.
  if (std::filesystem::exists("/proc/self/fd")) {
    message_of<IoError>([&] { open_video_writer("/proc/self/fd/a.mp4", kSmall); });
  }
  std::filesystem::create_directory(folder / "locked");
  chmod((folder / "locked").c_str(), 0555);
  chmod(folder.path().c_str(), 0755);
  const uid_t user = geteuid();
  constexpr uid_t kNobody = 65534;
  if (user == 0 && seteuid(kNobody) != 0) GTEST_SKIP() << "cannot give up the superuser's rights";
  EXPECT_THAT(refusal(folder / "locked/a.mp4", kSmall), HasSubstr("Permission denied"));
  EXPECT_THAT(refusal(folder / "locked/frames/", kSmall), HasSubstr("Permission denied"));
  ASSERT_EQ(seteuid(user), 0);
}

TEST(VideoWriter, reports_a_write_that_fails_and_leaves_nothing) {
  const at::Tensor frames = noisy_frames(24, 96, 96);
  for (const char* name : {"a.mp4", "a.mkv", "a.webm", "a.avi", "frames/"}) {
    const ScratchFolder folder;
    std::string message;
    {
      const FileSizeLimit limit(4096);
      message = message_of<IoError>([&] { write_clip(folder / name, frames, options_for(frames)); });
    }
    EXPECT_THAT(message, HasSubstr("File too large")) << name;
    EXPECT_EQ(folder.num_entries(), 0u) << name;
  }
}

TEST(VideoReader, tells_what_it_cannot_read) {
  const ScratchFolder folder;
  const auto failure = [&](const std::string& name) {
    return message_of<IoError>([&] { open_video_reader(folder / name); });
  };
  EXPECT_THAT(failure("none.mp4"), AllOf(HasSubstr("none.mp4"), HasSubstr("No such file")));
  EXPECT_THAT(failure("none.png"), HasSubstr("No such file"));
  std::ofstream(folder / "empty.mp4");
  failure("empty.mp4");
  std::ofstream(folder / "text.mp4") << std::string(5000, 'q');
  EXPECT_THAT(failure("text.mp4"), HasSubstr("Invalid data"));
  std::ofstream(folder / "text.png") << "no image";
  EXPECT_THAT(failure("text.png"), HasSubstr("not an image"));
  std::filesystem::create_directory(folder / "no_images");
  EXPECT_THAT(failure("no_images"), HasSubstr("no images"));
  write_clip(folder / "mixed/{frame}.png", noisy_frames(2, 8, 8), {.height = 8, .width = 8});
  write_clip(folder / "mixed/9.png", noisy_frames(1, 8, 9), {.height = 8, .width = 9});
  EXPECT_THAT(message_of<IoError>([&] { read_all_frames(folder / "mixed"); }), HasSubstr("9x8"));
}

// Every outcome but a crash, a hang or a foreign exception is right; a cut before the first frame is an IoError.
void read_damaged(const std::filesystem::path& path) {
  try {
    const at::Tensor frames = read_all_frames(path);
    EXPECT_EQ(frames.dim(), 4);
  } catch (const Error& error) {
    EXPECT_STRNE(error.what(), "");
  }
}

TEST(VideoReader, survives_damaged_files) {
  set_log_sink([](LogLevel, std::string_view) {});
  const ScratchFolder folder;
  const at::Tensor frames = moving_frames(8, 48, 64);
  uint32_t state = 12345;
  for (const char* name : {"a.mp4", "a.mkv", "a.webm", "a.avi", "b.mkv"}) {
    SCOPED_TRACE(name);
    VideoOptions options = options_for(frames);
    options.is_lossless = std::string(name) == "b.mkv";
    write_clip(folder / name, frames, options);
    std::ifstream in(folder / name, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    const std::filesystem::path damaged = folder / ("damaged_" + std::string(name));
    for (size_t part = 0; part < 12; ++part) {
      std::ofstream(damaged, std::ios::binary) << bytes.substr(0, bytes.size() * part / 12);
      read_damaged(damaged);
      std::string changed = bytes;
      for (int i = 0; i < 20; ++i) {
        state = state * 1664525 + 1013904223;
        changed[(state >> 4) % changed.size()] = static_cast<char>(state >> 24);
      }
      std::ofstream(damaged, std::ios::binary) << changed;
      read_damaged(damaged);
    }
    std::ofstream(damaged, std::ios::binary) << bytes.substr(0, 40);
    message_of<IoError>([&] { read_all_frames(damaged); });
  }
  set_log_sink({});
}

}  // namespace
}  // namespace strobe::video
