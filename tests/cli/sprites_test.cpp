// Clips of the bundled model's data, and the checker, through the program.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "video/video_reader.h"
#include "weights/json.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct SpritesCli : test::Cli {
  test::ProcessResult clips(const std::vector<std::string>& more) const {
    return with({"models", "sprites-clips", "--size", "64x64", "--frames", "9", "-q"}, more);
  }
  test::ProcessResult check(const std::vector<std::string>& more) const {
    return with({"models", "sprites-check", "-q"}, more);
  }

 private:
  test::ProcessResult with(std::vector<std::string> arguments, const std::vector<std::string>& more) const {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments);
  }
};

TEST_F(SpritesCli, clips_are_written_with_captions_and_read_back) {
  const auto made = clips({"-o", "data", "-n", "3", "--seed", "4", "--two-objects", "--lossless"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_FALSE(has_leftovers());
  const std::vector<std::string> files = {"data/00000.mkv", "data/00001.mkv", "data/00002.mkv"};
  // The captions that the clips carry, and those of the file, are the same.
  for (const std::string captions : {"", "data/captions.jsonl", "data/prompts.txt"}) {
    std::vector<std::string> arguments = files;
    if (!captions.empty()) {
      arguments.emplace_back("--captions");
      arguments.push_back(captions);
    }
    arguments.emplace_back("--json");
    arguments.emplace_back("-");
    const auto checked = check(arguments);
    ASSERT_EQ(checked.exit_code, 0) << checked.err;
    const ConfigNode report = weights::parse_json(checked.out, "stdout");
    EXPECT_EQ(report.at("score").at("all").at("right").as_integer(), 3) << checked.out;
    EXPECT_EQ(report.at("score").at("count").at("total").as_integer(), 3);
    EXPECT_EQ(report.at("clips").as_list()[0].at("objects").as_list().size(), 2U);
  }
  ASSERT_EQ(clips({"-o", "again", "-n", "2", "--seed", "4", "--two-objects", "--lossless"}).exit_code, 0);
  EXPECT_TRUE(
      at::equal(video::read_all_frames(folder / "again/00001.mkv"), video::read_all_frames(folder / "data/00001.mkv")));
}

TEST_F(SpritesCli, a_wrong_caption_is_told) {
  ASSERT_EQ(clips({"-o", "data", "-n", "1"}).exit_code, 0);
  // No background that a clip has is both.
  folder.write("black.txt", "a circle on a black background\n");
  folder.write("white.txt", "a circle on a white background\n");
  int wrong = 0;
  for (const char* captions : {"black.txt", "white.txt"}) {
    const auto checked = check({"data/00000.mp4", "--captions", captions});
    ASSERT_EQ(checked.exit_code, 0) << checked.err;
    wrong += checked.out.find("background        0      1     0.0%") != std::string::npos ? 1 : 0;
  }
  EXPECT_GE(wrong, 1);
}

TEST_F(SpritesCli, measures_itself_on_rendered_clips) {
  const auto checked = check({"--rendered", "20", "--size", "64x64", "--frames", "17", "--noise", "0.1"});
  ASSERT_EQ(checked.exit_code, 0) << checked.err;
  EXPECT_THAT(checked.out, HasSubstr("all              20     20   100.0%"));
}

TEST_F(SpritesCli, refuses_what_it_cannot_mean) {
  ASSERT_EQ(clips({"-o", "data", "-n", "2"}).exit_code, 0);
  folder.write("one.txt", "a red circle\n");
  folder.write("cat.txt", "a cat\na cat\n");
  folder.write("other.jsonl", "{\"file\": \"x.mp4\", \"caption\": \"a red circle\"}\n");
  const std::string clip = "data/00000.mp4", second = "data/00001.mp4";
  struct Case {
    std::vector<std::string> arguments;
    const char* message;
  };
  const std::vector<Case> cases = {
      {{}, "files to check, or --rendered N"},
      {{clip, "--rendered", "3"}, "files to check, or --rendered N"},
      {{clip, "--noise", "0.1"}, "--noise: for clips that --rendered N makes"},
      {{"--rendered", "3", "--captions", "one.txt"}, "--captions: for files"},
      {{clip, second, "--captions", "one.txt"}, "1 captions for 2 clips"},
      {{clip, "--captions", "other.jsonl"}, "none for data/00000.mp4"},
      {{clip, second, "--captions", "cat.txt"}, "data/00000.mp4: caption \"a cat\": unknown word 'cat'"},
      {{clip, "--captions", "none.txt"}, "none.txt"}};
  for (const Case& one : cases) {
    const auto result = check(one.arguments);
    EXPECT_EQ(result.exit_code, 2) << one.message;
    EXPECT_THAT(result.err, HasSubstr(one.message));
  }
  EXPECT_THAT(clips({"-o", "data"}).err, HasSubstr("data: exists already"));
  EXPECT_THAT(strobe({"models", "sprites-clips", "-o", "odd", "--size", "65x64"}).err,
              HasSubstr("yuv420p needs a width"));
  EXPECT_THAT(clips({"-o", "few", "--evaluation", "-n", "3"}).err, HasSubstr("--num-clips has no say"));
  EXPECT_FALSE(fs::exists(folder / "odd"));
}

}  // namespace
}  // namespace strobe
