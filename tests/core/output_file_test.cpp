#include "core/output_file.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "core/error.h"
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/support/temp_folder.h"

namespace {
// What the file system has not: no mounted one can be relied on to lack it.
int missing_renameat2 = 0, missing_link = 0;
}  // namespace

// In place of libc's for this program.
extern "C" int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  if (missing_renameat2 != 0) {
    errno = missing_renameat2;
    return -1;
  }
  return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}
extern "C" int link(const char* from, const char* to) noexcept {
  if (missing_link != 0) {
    errno = missing_link;
    return -1;
  }
  return static_cast<int>(syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}

namespace strobe {
namespace {

using test::read_file;
using testing::HasSubstr;

size_t num_entries(const test::TempFolder& folder) {
  const std::filesystem::directory_iterator entries(folder.path());
  return static_cast<size_t>(std::distance(begin(entries), end(entries)));
}

struct FileSystem {
  const char* name;
  int renameat2, link;
};
std::ostream& operator<<(std::ostream& out, const FileSystem& row) { return out << row.name; }

class Publishing : public testing::TestWithParam<FileSystem> {
 protected:
  void SetUp() override {
    missing_renameat2 = GetParam().renameat2;
    missing_link = GetParam().link;
  }
  void TearDown() override { missing_renameat2 = missing_link = 0; }
  test::TempFolder folder;
};

TEST_P(Publishing, replaces_only_where_it_may) {
  write_file(folder / "new", "first", Replace::kNever);
  EXPECT_EQ(read_file(folder / "new"), "first");
  EXPECT_EQ(test::message_of<IoError>([&] { write_file(folder / "new", "second", Replace::kNever); }),
            (folder / "new").string() + ": exists already; another program made it meanwhile");
  EXPECT_EQ(read_file(folder / "new"), "first");
  EXPECT_EQ(num_entries(folder), 1u);
  write_file(folder / "new", "third");
  EXPECT_EQ(read_file(folder / "new"), "third");
  EXPECT_EQ(num_entries(folder), 1u);
}

TEST_P(Publishing, leaves_a_link_alone_wherever_it_leads) {
  std::filesystem::create_symlink("nowhere", folder / "link");
  EXPECT_THROW(write_file(folder / "link", "text", Replace::kNever), IoError);
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(num_entries(folder), 1u);
}

TEST_P(Publishing, takes_a_file_that_a_library_wrote) {
  const auto temporary = temporary_beside(folder / "clip");
  folder.write(temporary.filename(), "clip");
  publish_file(temporary, folder / "clip", Replace::kNever);
  EXPECT_EQ(read_file(folder / "clip"), "clip");
  folder.write(temporary.filename(), "other");
  EXPECT_THROW(publish_file(temporary, folder / "clip", Replace::kNever), IoError);
  EXPECT_EQ(read_file(folder / "clip"), "clip");
  publish_file(temporary, folder / "clip");
  EXPECT_EQ(read_file(folder / "clip"), "other");
  EXPECT_EQ(num_entries(folder), 1u);
}

INSTANTIATE_TEST_SUITE_P(FileSystems, Publishing,
                         testing::Values(FileSystem{"today's", 0, 0}, FileSystem{"links_only", EINVAL, 0},
                                         FileSystem{"old_kernel", ENOSYS, 0}, FileSystem{"neither", EINVAL, EPERM}));

TEST(OutputFolder, appears_when_it_is_published_and_leaves_nothing_otherwise) {
  const test::TempFolder folder;
  {
    const OutputFolder part(folder / "model");
    write_file(part.path() / "a", "text");
    EXPECT_FALSE(std::filesystem::exists(folder / "model"));
  }
  EXPECT_EQ(num_entries(folder), 0u);
  std::filesystem::create_directory(folder / "model");  // an empty one may be there
  {
    OutputFolder part(folder / "model/");
    write_file(part.path() / "a", "text");
    part.publish();
  }
  EXPECT_EQ(read_file(folder / "model" / "a"), "text");
  EXPECT_EQ(num_entries(folder), 1u);
}

TEST(OutputFolder, takes_no_place_that_is_taken_and_none_that_is_not_there) {
  const test::TempFolder folder;
  folder.write("file", "mine");
  std::filesystem::create_directory(folder / "full");
  folder.write("full/file", "mine");
  EXPECT_THROW(OutputFolder(folder / "file"), ConfigError);
  EXPECT_THROW(OutputFolder(folder / "full"), ConfigError);
  EXPECT_THROW(OutputFolder(folder / "none" / "model"), IoError);
  EXPECT_EQ(num_entries(folder), 2u);
}

TEST(OutputFile, is_published_by_one_of_many) {
  const test::TempFolder folder;
  std::atomic<int> published{0};
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      try {
        write_file(folder / "one", std::string(1000, static_cast<char>('a' + i)), Replace::kNever);
        ++published;
      } catch (const IoError&) {
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(published, 1);
  EXPECT_EQ(num_entries(folder), 1u);
  EXPECT_EQ(std::filesystem::file_size(folder / "one"), 1000u);
}

TEST(OutputFile, reports_a_system_error_as_such) {
  const test::TempFolder folder;
  std::filesystem::create_directory(folder / "sub");
  OutputFile file(folder / "sub/a");
  std::filesystem::remove_all(folder / "sub");
  EXPECT_THAT(test::message_of<IoError>([&] { file.publish(Replace::kNever); }), HasSubstr("rename: No such file"));
}

TEST(OutputFile, removes_what_a_process_that_is_gone_began) {
  const test::TempFolder folder;
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  const std::string gone = std::to_string(child), alive = std::to_string(getpid());
  folder.write(".clip.mp4." + gone + "-0.part", "x");
  folder.write(".clip.mp4.1f3a09bc.checkpoint." + gone + "-7.part", "x");
  const std::vector<std::string> kept = {".clip.mp4." + alive + "-0.part", ".other.mp4." + gone + "-0.part",
                                         ".clip.mp4.part", ".clip.mp4.x-1.part", "clip.mp4"};
  for (const std::string& name : kept) folder.write(name, "x");
  remove_stale_temporaries(folder / "clip.mp4");
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    left.push_back(entry.path().filename().string());
  }
  EXPECT_THAT(left, ::testing::UnorderedElementsAreArray(kept));
}

}  // namespace
}  // namespace strobe
