#include "core/lock_file.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "core/error.h"
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/support/temp_folder.h"

namespace strobe {
namespace {

using testing::HasSubstr;

// A child that holds the lock until it is told to end, and says so when it does.
class Holder {
 public:
  explicit Holder(const std::filesystem::path& path) {
    if (pipe(ready_) != 0 || pipe(end_) != 0) throw std::runtime_error("pipe failed");
    child_ = fork();
    if (child_ == 0) {
      close(end_[1]);
      char byte = 0;
      {
        const auto lock = LockFile::try_lock(path);
        byte = lock ? 'y' : 'n';
        if (write(ready_[1], &byte, 1) != 1 || read(end_[0], &byte, 1) < 0) _exit(1);
      }
      _exit(0);
    }
    close(end_[0]);
    char byte = 0;
    has_lock_ = read(ready_[0], &byte, 1) == 1 && byte == 'y';
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder() { end(SIGKILL); }

  bool has_lock() const { return has_lock_; }
  pid_t id() const { return child_; }
  // With 0 it ends orderly.
  void end(int signal) {
    if (child_ == 0) return;
    if (signal != 0) kill(child_, signal);
    close(end_[1]);
    waitpid(child_, nullptr, 0);
    close(ready_[0]);
    close(ready_[1]);
    child_ = 0;
  }

 private:
  int ready_[2] = {-1, -1}, end_[2] = {-1, -1};
  pid_t child_ = 0;
  bool has_lock_ = false;
};

TEST(LockFile, is_held_once_and_removed_by_its_holder) {
  const test::TempFolder folder;
  const auto path = lock_beside(folder / "clip.mp4");
  EXPECT_EQ(path.filename(), ".clip.mp4.lock");
  {
    const auto lock = LockFile::try_lock(path);
    ASSERT_TRUE(lock);
    EXPECT_EQ(test::read_file(path), fmt::format("{}\n", getpid()));
    EXPECT_EQ(LockFile::holder_of(path), getpid());
    EXPECT_FALSE(LockFile::try_lock(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(LockFile::holder_of(path));
  EXPECT_TRUE(LockFile::try_lock(path));
}

TEST(LockFile, moves) {
  const test::TempFolder folder;
  auto first = LockFile::try_lock(folder / "a");
  auto second = LockFile::try_lock(folder / "b");
  ASSERT_TRUE(first && second);
  {
    const LockFile moved = std::move(*first);
    first.reset();
    EXPECT_FALSE(LockFile::try_lock(folder / "a"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()) == false);
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  *second = std::move(*LockFile::try_lock(folder / "c"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b"));
  EXPECT_FALSE(LockFile::try_lock(folder / "c"));
}

TEST(LockFile, names_the_process_that_holds_it) {
  const test::TempFolder folder;
  Holder holder(folder / "lock");
  ASSERT_TRUE(holder.has_lock());
  EXPECT_FALSE(LockFile::try_lock(folder / "lock"));
  EXPECT_EQ(LockFile::holder_of(folder / "lock"), holder.id());
  holder.end(0);
  EXPECT_FALSE(std::filesystem::exists(folder / "lock"));
  EXPECT_TRUE(LockFile::try_lock(folder / "lock"));
}

TEST(LockFile, is_free_when_its_holder_was_killed) {
  const test::TempFolder folder;
  Holder holder(folder / "lock");
  ASSERT_TRUE(holder.has_lock());
  holder.end(SIGKILL);
  EXPECT_TRUE(std::filesystem::exists(folder / "lock"));
  const auto lock = LockFile::try_lock(folder / "lock");
  ASSERT_TRUE(lock);
  EXPECT_EQ(LockFile::holder_of(folder / "lock"), getpid());
}

TEST(LockFile, of_a_longer_number_leaves_no_digits_behind) {
  const test::TempFolder folder;
  folder.write("lock", "99999999999999\n");
  EXPECT_FALSE(LockFile::holder_of(folder / "lock"));
  const auto lock = LockFile::try_lock(folder / "lock");
  EXPECT_EQ(LockFile::holder_of(folder / "lock"), getpid());
}

TEST(LockFile, leaves_a_file_alone_that_took_its_place) {
  const test::TempFolder folder;
  {
    const auto lock = LockFile::try_lock(folder / "lock");
    std::filesystem::remove(folder / "lock");
    folder.write("lock", "another's");
  }
  EXPECT_EQ(test::read_file(folder / "lock"), "another's");
}

TEST(LockFile, reports_what_the_system_refuses) {
  const test::TempFolder folder;
  EXPECT_THAT(test::message_of<IoError>([&] { LockFile::try_lock(folder / "none/lock"); }),
              HasSubstr("open: No such file"));
  std::filesystem::create_symlink(folder / "elsewhere", folder / "link");
  EXPECT_THAT(test::message_of<IoError>([&] { LockFile::try_lock(folder / "link"); }), HasSubstr("link: open"));
  EXPECT_FALSE(std::filesystem::exists(folder / "elsewhere"));
}

// Each holder removes the file, so that the others run into the moment between opening and locking.
TEST(LockFile, is_never_held_twice_under_contention) {
  const test::TempFolder folder;
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      for (int taken = 0; taken < 200;) {
        const auto lock = LockFile::try_lock(folder / "lock");
        if (!lock) continue;
        const int mark = open((folder / "mark").c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (mark < 0) _exit(1);
        close(mark);
        unlink((folder / "mark").c_str());
        ++taken;
      }
      _exit(0);
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace strobe
