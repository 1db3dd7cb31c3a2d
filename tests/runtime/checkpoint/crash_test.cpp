// Writers that are killed, and writers that run out of room.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "runtime/checkpoint/checkpoint.h"
#include "tests/support/files.h"
#include "tests/support/sample_checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace fs = std::filesystem;
namespace {

int temporaries(const std::string& folder) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(folder))
    count += entry.path().filename().string().starts_with(".tmp-");
  return count;
}

// Runs `check` in a child, whose limits and mounts end with it. Its exit code.
int in_child(const std::function<int()>& check) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 99;
    try {
      code = check();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
    }
    ::_exit(code);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Crash, KilledWritersLeaveOnlyWholeCheckpoints) {
  const TestFolder run;
  std::mt19937 random(17);
  std::uniform_int_distribution<useconds_t> delay(0, 12'000);
  int killed_inside = 0;
  int64_t newest = 0;
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        for (int64_t step = newest + 1;; ++step)
          write_checkpoint(run.path(), SampleCheckpoint(step, 100'000).contents(), 2, "");
      } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
      }
      ::_exit(1);
    }
    ::usleep(delay(random));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed";
    const int64_t before = newest;
    for (const std::string& folder : list_checkpoints(run.path()))
      newest = load_checkpoint(folder).meta.at("step");
    ASSERT_GE(newest, before);
    if (fs::exists(run.file("checkpoints"))) killed_inside += temporaries(run.file("checkpoints")) > 0;
  }
  EXPECT_GT(newest, 5) << "the writers got nowhere: nothing was tested";
  EXPECT_GT(killed_inside, 5) << "no writer was killed at work: nothing was tested";
  write_checkpoint(run.path(), SampleCheckpoint(newest + 1).contents(), 2, "");
  EXPECT_EQ(temporaries(run.file("checkpoints")), 0);
  EXPECT_LE(list_checkpoints(run.path()).size(), 2u);
}

TEST(Crash, ALivingWritersFolderIsNoOrphan) {
  const TestFolder run;
  write_checkpoint(run.path(), SampleCheckpoint(1).contents(), 0, "");
  const std::string alive = run.file("checkpoints/.tmp-alive"), dead = run.file("checkpoints/.tmp-dead");
  fs::create_directory(alive);
  fs::create_directory(dead);
  const int lock = ::open(alive.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  write_checkpoint(run.path(), SampleCheckpoint(2).contents(), 0, "");
  EXPECT_TRUE(fs::exists(alive));
  EXPECT_FALSE(fs::exists(dead));
  ::close(lock);
}

// A file size limit stops the writer inside each of the files in turn.
TEST(DiskFull, ALimitIsAnIoErrorAndHarmsNothing) {
  const TestFolder run;
  const std::string first = write_checkpoint(run.path(), SampleCheckpoint(1).contents(), 1, "");
  size_t largest = 0;
  for (const auto& entry : fs::directory_iterator(first))
    largest = std::max<size_t>(largest, entry.file_size());
  for (size_t limit = 0; limit < largest; limit += largest / 16) {
    EXPECT_EQ(in_child([&] {
                ::signal(SIGXFSZ, SIG_IGN);  // so that write() fails with EFBIG
                const rlimit size{limit, limit};
                if (::setrlimit(RLIMIT_FSIZE, &size) != 0) return 2;
                const auto error =
                    error_of([&] { write_checkpoint(run.path(), SampleCheckpoint(2).contents(), 1, ""); });
                if (!error) return 3;
                const std::string what = error->what();
                return error->exit() == Exit::io && what.find("step-00000002") != std::string::npos ? 0 : 4;
              }),
              0)
        << "limit " << limit;
    EXPECT_EQ(temporaries(run.file("checkpoints")), 0);
    ASSERT_EQ(list_checkpoints(run.path()), (std::vector{first}));
    load_checkpoint(first);
  }
}

// The same for the files at the run folder's root: the old one stays.
TEST(DiskFull, AReplacedFileStays) {
  const TestFolder run;
  write_file_atomically(run.file("status.json"), "old");
  export_model(run.path(), SampleCheckpoint(1).contents().model);
  const std::string model = read_file(run.file("model.safetensors"));
  EXPECT_EQ(in_child([&] {
              ::signal(SIGXFSZ, SIG_IGN);
              const rlimit size{100, 100};
              if (::setrlimit(RLIMIT_FSIZE, &size) != 0) return 2;
              const auto text =
                  error_of([&] { write_file_atomically(run.file("status.json"), std::string(101, 'x')); });
              const auto weights =
                  error_of([&] { export_model(run.path(), SampleCheckpoint(2).contents().model); });
              return text && text->exit() == Exit::io && weights && weights->exit() == Exit::io ? 0 : 3;
            }),
            0);
  EXPECT_EQ(read_file(run.file("status.json")), "old");
  EXPECT_EQ(read_file(run.file("model.safetensors")), model);
  EXPECT_EQ(temporaries(run.path()), 0);
}

// A file system that really fills up, at a different point each time, where one may be mounted (root, or a
// user namespace).
TEST(DiskFull, AFullFileSystemIsAnIoErrorAndHarmsNothing) {
  const TestFolder mount;
  constexpr int kCannotMount = 77;
  const auto check = [&](int free_pages) {
    if (::unshare(::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0) return kCannotMount;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kCannotMount;
    if (::mount("tmpfs", mount.path().c_str(), "tmpfs", 0, "size=256k,mode=777") != 0) return kCannotMount;
    const std::string first = write_checkpoint(mount.path(), SampleCheckpoint(1).contents(), 1, "");
    // All that is left, less `free_pages`.
    const auto free_bytes = static_cast<size_t>(fs::space(mount.path()).available);
    write_file(mount.file("filler"), std::string(free_bytes - static_cast<size_t>(free_pages) * 4096, 'x'));
    // 8,000 floats: a state of eight pages, with one each for the other files: 11 in all.
    const auto error =
        error_of([&] { write_checkpoint(mount.path(), SampleCheckpoint(2, 8000).contents(), 1, ""); });
    if (!error) return 3;
    if (error->exit() != Exit::io || std::string(error->what()).find("No space left") == std::string::npos)
      return 4;
    if (temporaries(mount.file("checkpoints")) != 0) return 5;
    if (list_checkpoints(mount.path()) != std::vector{first}) return 6;
    load_checkpoint(first);
    fs::remove(mount.file("filler"));
    write_checkpoint(mount.path(), SampleCheckpoint(2, 8000).contents(), 1, "");  // there is room again
    return 0;
  };
  for (int free_pages = 0; free_pages <= 10; ++free_pages) {
    const int code = in_child([&] { return check(free_pages); });
    if (code == kCannotMount)
      GTEST_SKIP() << "no file system may be mounted here; the limits above stand for it";
    EXPECT_EQ(code, 0) << free_pages << " pages free";
  }
}

}  // namespace
}  // namespace lockstep::testing
