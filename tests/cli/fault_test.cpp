// The program ended or its disk filled at any moment: a file of the output's name is whole or not there.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/fault.h"
#include "video/video_reader.h"
#include "weights/json.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kKilled = 128 + 9;

struct CliFaults : test::Cli {
  // One step suffices: what counts is what is written.
  test::ProcessResult clip(const std::string& name, const test::ProcessOptions& options,
                           const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"generate", "-p", "x", "--num-frames", "5", "--size", "64x48"};
    arguments.insert(arguments.end(), {"--steps", "1", "-o", name});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments, options);
  }
  std::string frame_hash() const { return weights::load_json(folder / "clip.json").at("frame_sha256").as_string(); }
  std::vector<std::string> events_of(const std::string& name) const {
    const test::TempFolder elsewhere;
    const auto result = clip(name, test::with_event_count(folder.path(), elsewhere / "events"));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return test::read_events(elsewhere / "events");
  }
  void empty_folder() const {
    for (const auto& entry : fs::directory_iterator(folder.path())) fs::remove_all(entry.path());
  }
  // Whole, or not there.
  void expect_no_half_file(const std::string& name) const {
    if (!fs::exists(folder / name)) return;
    EXPECT_EQ(video::read_all_frames(folder / name).sizes(), at::IntArrayRef({5, 48, 64, 3}));
  }
};

TEST_F(CliFaults, are_counted_where_the_clip_is_written) {
  for (const char* name : {"clip.mp4", "clip.mkv"}) {
    const auto events = events_of(name);
    EXPECT_THAT(events, Contains(StartsWith("open .clip."))) << name;
    EXPECT_THAT(events, Contains(StartsWith("write .clip."))) << name;
    EXPECT_THAT(events, Contains(StartsWith("fsync .clip."))) << name;
    EXPECT_THAT(events, Contains("rename " + std::string(name)));
    EXPECT_THAT(events, Contains("rename clip.json"));
    empty_folder();
  }
}

TEST_F(CliFaults, that_end_the_program_lose_nothing_that_resume_cannot_make_bit_equal) {
  const std::array<const char*, 3> kinds = {"kill", "kill-half", "kill-after"};
  size_t i = 0;
  for (const char* name : {"clip.mp4", "clip.mkv"}) {
    const auto events = events_of(name);
    const std::string expected = frame_hash();
    empty_folder();
    ASSERT_GE(events.size(), 10U);
    for (const size_t at : test::spread(events.size(), 8)) {
      const char* kind = at == events.size() ? "kill-after" : kinds[i++ % kinds.size()];
      SCOPED_TRACE(fmt::format("{} {} at {} of {}: {}", name, kind, at, events.size(), events[at - 1]));
      EXPECT_EQ(clip(name, test::with_fault(folder.path(), {.kind = kind, .at = at})).exit_code, kKilled);
      expect_no_half_file(name);
      const auto resumed = clip(name, {}, {"--resume"});
      ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
      EXPECT_EQ(frame_hash(), expected);
      EXPECT_EQ(video::read_all_frames(folder / name).sizes(), at::IntArrayRef({5, 48, 64, 3}));
      empty_folder();
    }
  }
}

TEST_F(CliFaults, of_a_full_disk_are_told_and_what_was_kept_goes_on) {
  for (const char* name : {"clip.mp4", "clip.mkv"}) {
    const auto events = events_of(name);
    const std::string expected = frame_hash();
    empty_folder();
    for (const size_t at : test::spread(events.size(), 6)) {
      // What comes after the last byte needs no space.
      if (!events[at - 1].starts_with("write")) continue;
      SCOPED_TRACE(fmt::format("{} at {} of {}: {}", name, at, events.size(), events[at - 1]));
      const auto result = clip(name, test::with_fault(folder.path(), {.kind = "enospc", .at = at}));
      EXPECT_EQ(result.exit_code, 1) << result.err;
      EXPECT_THAT(result.err, ContainsRegex("error: .*No space left on device"));
      EXPECT_EQ(result.err.find("error: "), result.err.rfind("error: ")) << result.err;
      EXPECT_FALSE(has_leftovers());
      expect_no_half_file(name);
      EXPECT_EQ(clip(name, {}, {"--resume"}).exit_code, 0);
      EXPECT_EQ(frame_hash(), expected);
      empty_folder();
    }
  }
}

TEST_F(CliFaults, of_the_disk_itself_are_told) {
  const auto events = events_of("clip.mkv");
  const auto found = std::find_if(events.begin(), events.end(), [](const auto& e) {
    return e.starts_with("fsync .clip.mkv.") && e.find("checkpoint") == std::string::npos;
  });
  ASSERT_NE(found, events.end());
  empty_folder();
  const auto at = static_cast<size_t>(found - events.begin()) + 1;
  const auto result = clip("clip.mkv", test::with_fault(folder.path(), {.kind = "eio", .at = at}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("fsync: Input/output error"));
  EXPECT_FALSE(fs::exists(folder / "clip.mkv"));
  EXPECT_FALSE(has_leftovers());
}

}  // namespace
}  // namespace strobe
