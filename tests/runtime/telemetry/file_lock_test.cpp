// SPDX-License-Identifier: Apache-2.0
// FileLock, and who locks by it, where the file system has flock and where it has none.
#include "runtime/files/file_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace fs = std::filesystem;
namespace {

std::string this_host() {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  return host;
}

std::string process(int64_t pid, const std::string& host) { return fmt::format("pid {} on {}\n", pid, host); }

// A process that has ended and been waited for.
pid_t dead_process() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  return child;
}

int refusal = 0;  // errno
int refuse(int /*descriptor*/, int /*operation*/) {
  errno = refusal;
  return -1;
}

// A file system whose flock fails.
class WithoutFlock : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    refusal = GetParam();
    lock_call = refuse;
  }
  void TearDown() override { lock_call = ::flock; }

  TestFolder dir_;
  std::string path_ = dir_.file("lock"), held_ = dir_.file("lock.held");
};
INSTANTIATE_TEST_SUITE_P(Errors, WithoutFlock,
                         ::testing::Values(ENOLCK, ENOTSUP, EOPNOTSUPP, ENOSYS, EINVAL, EBADF));

TEST_P(WithoutFlock, AFileBesideItIsTheLock) {
  {
    FileLock lock = FileLock::try_lock(path_);
    ASSERT_TRUE(lock);
    lock.sign();
    EXPECT_EQ(read_file(held_), process(::getpid(), this_host()));
    const FileLock second = FileLock::try_lock(path_);
    EXPECT_FALSE(second);
    EXPECT_EQ(second.holder() + "\n", process(::getpid(), this_host()));
    EXPECT_NE(second.how_to_remove().find(held_), std::string::npos);
    const FileLock moved = std::move(lock);
    EXPECT_TRUE(moved);
    EXPECT_TRUE(fs::exists(held_));
  }
  EXPECT_FALSE(fs::exists(held_));
  EXPECT_TRUE(FileLock::try_lock(path_));
}

TEST_P(WithoutFlock, ADeadProcesssIsTakenOver) {
  write_file(held_, process(dead_process(), this_host()));
  {
    const FileLock lock = FileLock::try_lock(path_);
    EXPECT_TRUE(lock);
    EXPECT_EQ(read_file(held_), process(::getpid(), this_host()));
    EXPECT_FALSE(FileLock::try_lock(path_));
  }
  EXPECT_EQ(names_in(dir_.path()), (std::vector<std::string>{"lock"}));
}

// Two that find it at the same time: the one that looks second must not remove what the first has made.
TEST_P(WithoutFlock, OnlyOneTakesADeadProcesssOver) {
  const std::string dead = process(dead_process(), this_host());
  for (int round = 0; round < 10; ++round) {
    write_file(held_, dead);
    int start[2], hold[2], result[2];
    ASSERT_TRUE(::pipe(start) == 0 && ::pipe(hold) == 0 && ::pipe(result) == 0);
    constexpr int kProcesses = 4;
    std::vector<pid_t> children;
    for (int i = 0; i < kProcesses; ++i) {
      children.push_back(::fork());
      if (children.back() != 0) continue;
      ::close(start[1]), ::close(hold[1]);
      char c = 0;
      if (::read(start[0], &c, 1) != 0) ::_exit(1);
      const FileLock lock = FileLock::try_lock(path_);
      c = lock ? 'y' : 'n';
      if (::write(result[1], &c, 1) != 1 || ::read(hold[0], &c, 1) != 0) ::_exit(1);
      ::_exit(0);
    }
    ::close(start[1]);
    int owners = 0;
    for (int i = 0; i < kProcesses; ++i) {
      char c = 0;
      ASSERT_EQ(::read(result[0], &c, 1), 1);
      owners += c == 'y';
    }
    EXPECT_EQ(owners, 1);
    ::close(hold[1]);
    for (const pid_t child : children) ::waitpid(child, nullptr, 0);
    for (const int end : {start[0], hold[0], result[0], result[1]}) ::close(end);
  }
}

TEST_P(WithoutFlock, AnotherHostsIsRefusedByNameAndSoIsOneThatSaysNothing) {
  const pid_t dead = dead_process();
  for (const std::string& owner : {process(dead, "elsewhere"), process(dead, this_host() + "x"),
                                   process(::getppid(), this_host()), std::string("pid x"), std::string()}) {
    write_file(held_, owner);
    const FileLock lock = FileLock::try_lock(path_);
    EXPECT_FALSE(lock) << owner;
    EXPECT_EQ(lock.holder() + "\n", owner.empty()           ? "unnamed\n"
                                    : owner.ends_with('\n') ? owner
                                                            : owner + "\n");
    EXPECT_EQ(read_file(held_), owner);
  }
}

TEST_P(WithoutFlock, ARunFolderOfAnotherHostNamesTheFileToRemove) {
  const std::string run = dir_.file("run");
  { write_status(RunFolder::create(dir_.path(), "mnist", run).path(), {}); }
  EXPECT_EQ(names_in(run), (std::vector<std::string>{".lock", "status.json"}));
  write_file(run + "/.lock.held", "pid 17 on elsewhere\n");
  const auto error = error_of([&] { RunFolder::open(dir_.path(), "mnist", run); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->exit(), Exit::cannot_create);
  EXPECT_NE(std::string(error->what()).find("pid 17 on elsewhere"), std::string::npos) << error->what();
  EXPECT_NE(error->hint().find("remove " + run + "/.lock.held"), std::string::npos) << error->hint();
  write_file(run + "/.lock.held", process(dead_process(), this_host()));
  EXPECT_EQ(RunFolder::open(dir_.path(), "mnist", run).path(), run);
}

TEST_P(WithoutFlock, DeadWritersFoldersAreRemovedAndOnlyThose) {
  const auto write = [&](int64_t step) {
    CheckpointContents contents;
    contents.meta = {{"step", step}};
    write_checkpoint(dir_.path(), contents, 0, "");
  };
  write(1);
  const std::string all = dir_.file("checkpoints");
  EXPECT_EQ(names_in(all), (std::vector<std::string>{"step-00000001"}));
  const auto leave = [&](const std::string& name, const std::string& owner) {
    fs::create_directory(all + "/" + name);
    write_file(all + "/" + name + ".held", owner);
  };
  leave(".tmp-alive-1", process(::getpid(), this_host()));
  leave(".tmp-elsewhere-1", process(17, "elsewhere"));
  leave(".tmp-dead-1", process(dead_process(), this_host()));
  write_file(all + "/.tmp-committed-1.held", process(dead_process(), this_host()));
  write(2);
  EXPECT_EQ(names_in(all),
            (std::vector<std::string>{".tmp-alive-1", ".tmp-alive-1.held", ".tmp-elsewhere-1",
                                      ".tmp-elsewhere-1.held", "step-00000001", "step-00000002"}));
}

TEST(FileLock, IsFlockWhereThereIsOne) {
  const TestFolder dir;
  for (const std::string& path : {dir.file("lock"), dir.path()}) {
    {
      const FileLock lock = FileLock::try_lock(path);
      EXPECT_TRUE(lock);
      const FileLock second = FileLock::try_lock(path);
      EXPECT_FALSE(second);
      EXPECT_EQ(second.how_to_remove(), "");
    }
    EXPECT_TRUE(FileLock::try_lock(path));
    EXPECT_FALSE(fs::exists(path + ".held"));
  }
}

TEST(FileLock, OtherErrorsAreErrorsAndLinksAreNotFollowed) {
  const TestFolder dir;
  lock_call = refuse;
  refusal = EIO;
  expect_error(
      Exit::io, [&] { FileLock::try_lock(dir.file("lock")); }, dir.file("lock"));
  lock_call = ::flock;
  EXPECT_FALSE(fs::exists(dir.file("lock.held")));
  write_file(dir.file("precious"), "as it was");
  fs::create_symlink(dir.file("precious"), dir.file("link"));
  expect_error(
      Exit::cannot_create, [&] { FileLock::try_lock(dir.file("link")); }, dir.file("link"));
  EXPECT_EQ(read_file(dir.file("precious")), "as it was");
}

}  // namespace
}  // namespace lockstep::testing
