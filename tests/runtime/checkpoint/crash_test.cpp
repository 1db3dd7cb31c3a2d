// SPDX-License-Identifier: Apache-2.0
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

#include <chrono>
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
  const auto write = [&](int64_t step) {
    write_checkpoint(run.path(), SampleCheckpoint(step, 100'000).contents(), 2, "");
  };
  int rounds = 0, killed_inside = 0;
  int64_t newest = 0, written_by_killed = 0;
  // At least 50 rounds, and until kills have hit both writers at work and writers that had finished some: how
  // long a write takes depends on who else uses the disk.
  for (; rounds < 50 || (rounds < 500 && (killed_inside < 10 || written_by_killed < 10)); ++rounds) {
    const auto start = std::chrono::steady_clock::now();
    write(++newest);  // works after a crash; its duration is what the kill is aimed by
    const std::chrono::duration<double, std::micro> duration = std::chrono::steady_clock::now() - start;
    ASSERT_EQ(temporaries(run.file("checkpoints")), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        for (int64_t step = newest + 1;; ++step) write(step);
      } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
      }
      ::_exit(1);
    }
    ::usleep(static_cast<useconds_t>(std::uniform_real_distribution<>(0, 3 * duration.count())(random)));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed";
    const std::vector<std::string> folders = list_checkpoints(run.path());
    for (const std::string& folder : folders) load_checkpoint(folder);
    ASSERT_FALSE(folders.empty());
    const int64_t found = load_checkpoint(folders.back()).meta.at("step");
    ASSERT_GE(found, newest) << "a checkpoint was lost";
    written_by_killed += found - newest;
    newest = found;
    killed_inside += temporaries(run.file("checkpoints")) > 0;
  }
  EXPECT_GE(killed_inside, 10) << "hardly a writer was killed at work in " << rounds
                               << " rounds: nothing was tested";
  EXPECT_GE(written_by_killed, 10) << "hardly a writer finished in " << rounds
                                   << " rounds: nothing was tested";
  write(newest + 1);
  EXPECT_EQ(temporaries(run.file("checkpoints")), 0);
  EXPECT_EQ(list_checkpoints(run.path()).size(), 2u);
}

TEST(Crash, ALivingWritersFolderIsNoOrphan) {
  const TestFolder run;
  write_checkpoint(run.path(), SampleCheckpoint(1).contents(), 0, "");
  const std::string alive = run.file("checkpoints/.tmp-alive-1"), dead = run.file("checkpoints/.tmp-dead-2");
  fs::create_directory(alive);
  fs::create_directory(dead);
  const int lock = ::open(alive.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  write_checkpoint(run.path(), SampleCheckpoint(2).contents(), 0, "");
  EXPECT_TRUE(fs::exists(alive));
  EXPECT_FALSE(fs::exists(dead));
  ::close(lock);
}

// The file system's clock may be ahead of the program's: on a server, or by a tick on the same machine.
TEST(Crash, AnOrphanOfTheNextSecondIsRemoved) {
  const TestFolder run;
  write_checkpoint(run.path(), SampleCheckpoint(1).contents(), 0, "");
  const std::string folder = run.file("checkpoints/.tmp-folder-1"),
                    file = run.file("checkpoints/.tmp-file-1");
  fs::create_directory(folder);
  write_file(file, "");
  for (const std::string& path : {folder, file})
    fs::last_write_time(path, fs::file_time_type::clock::now() + std::chrono::minutes(1));
  write_checkpoint(run.path(), SampleCheckpoint(2).contents(), 0, "");
  EXPECT_EQ(temporaries(run.file("checkpoints")), 0);
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
  export_model(run.path() + "/model.safetensors", SampleCheckpoint(1).contents().model);
  const std::string model = read_file(run.file("model.safetensors"));
  EXPECT_EQ(in_child([&] {
              ::signal(SIGXFSZ, SIG_IGN);
              const rlimit size{100, 100};
              if (::setrlimit(RLIMIT_FSIZE, &size) != 0) return 2;
              const auto text =
                  error_of([&] { write_file_atomically(run.file("status.json"), std::string(101, 'x')); });
              const auto weights = error_of([&] {
                export_model(run.path() + "/model.safetensors", SampleCheckpoint(2).contents().model);
              });
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
