// SPDX-License-Identifier: Apache-2.0
// A power loss takes names that their folder has not synced: whoever makes a folder syncs the one that it lies in.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/support/sample_checkpoint.h"
#include "tests/support/temporary_folder.h"

namespace {

std::vector<std::string> synced;  // paths, in order

}  // namespace

// Stands in front of the system's.
extern "C" int fsync(int descriptor) {
  std::error_code ignored;
  synced.push_back(
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), ignored).string());
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

namespace lockstep::testing {
namespace {

using Paths = std::vector<std::string>;

TEST(SyncedFolders, EachThatGotANewNameAndOnce) {
  const TestFolder dir;
  synced.clear();
  make_folders(dir.file("a/b/c/"));
  EXPECT_EQ(synced, (Paths{dir.path(), dir.file("a"), dir.file("a/b")}));
  make_folders(dir.file("a/b/c"));
  EXPECT_EQ(synced.size(), 3u) << "nothing was made";
  make_folders(dir.file("a/b/d"));
  EXPECT_EQ(synced.size(), 4u);
  EXPECT_EQ(synced.back(), dir.file("a/b"));
}

TEST(SyncedFolders, OfANumberedRunAndOfOneByName) {
  const TestFolder dir;
  synced.clear();
  RunFolder::create(dir.file("all/runs"), "mnist", "");
  EXPECT_EQ(synced, (Paths{dir.path(), dir.file("all"), dir.file("all/runs")}));
  synced.clear();
  RunFolder::create(dir.file("all/runs"), "mnist", "");
  EXPECT_EQ(synced, (Paths{dir.file("all/runs")}));
  synced.clear();
  RunFolder::create("", "", dir.file("exact/run"));
  EXPECT_EQ(synced, (Paths{dir.path(), dir.file("exact")}));
}

TEST(SyncedFolders, OfTheFirstCheckpoint) {
  const TestFolder dir;
  synced.clear();
  write_checkpoint(dir.path(), SampleCheckpoint(1).contents(), 0, "");
  EXPECT_EQ(std::ranges::count(synced, dir.path()), 1);
  EXPECT_EQ(std::ranges::count(synced, dir.file("checkpoints")), 1);
}

// Where one may make names but not list them there is nothing to open, and so to sync.
TEST(SyncedFolders, AFolderThatCannotBeReadIsNoReasonToStop) {
  const TestFolder dir;
  namespace fs = std::filesystem;
  fs::create_directory(dir.file("blind"));
  fs::permissions(dir.file("blind"), fs::perms::owner_write | fs::perms::owner_exec);
  EXPECT_NO_THROW(make_folders(dir.file("blind/a")));
  EXPECT_TRUE(fs::is_directory(dir.file("blind/a")));
}

}  // namespace
}  // namespace lockstep::testing
