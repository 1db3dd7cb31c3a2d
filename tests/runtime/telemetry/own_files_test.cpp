// SPDX-License-Identifier: Apache-2.0
// What a run opens for writing by a name that is known beforehand: what somebody has put there must not become a victim.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/checkpoint/file_io.h"
#include "runtime/files/file_lock.h"
#include "runtime/telemetry/log.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace fs = std::filesystem;
namespace {

struct Writer {
  const char* what;
  void (*write)(const std::string& path);
};
void PrintTo(const Writer& writer, std::ostream* out) { *out << writer.what; }

const Writer kWriters[] = {
    {"lock", [](const std::string& path) { FileLock::try_lock(path).sign(); }},
    {"log",
     [](const std::string& path) {
       open_log(path, 0, 1);
       spdlog::info("x");
       open_log("", 0, 1);
     }},
    {"metrics", [](const std::string& path) { MetricsWriter(path, {}).write({}); }},
    {"resumed metrics", [](const std::string& path) { MetricsWriter(path, 7).write({}); }},
    {"file", [](const std::string& path) { OutputFile(path).write("x"); }},
};

class OwnFiles : public ::testing::TestWithParam<Writer> {
 protected:
  void SetUp() override { write_file(victim_, "as it was"); }
  void expect_refused(const std::string& word) {
    expect_error(
        Exit::cannot_create, [&] { GetParam().write(planted_); }, "E_CANNOT_CREATE", planted_, word,
        "remove it");
    EXPECT_EQ(read_file(victim_), "as it was");
  }

  TestFolder dir_;
  std::string victim_ = dir_.file("victim"), planted_ = dir_.file("planted");
};
INSTANTIATE_TEST_SUITE_P(Writers, OwnFiles, ::testing::ValuesIn(kWriters));

TEST_P(OwnFiles, ASymbolicLinkIsRefused) {
  fs::create_symlink(victim_, planted_);
  expect_refused("it is a link");
}

TEST_P(OwnFiles, AnotherNameOfAFileIsRefused) {
  fs::create_hard_link(victim_, planted_);
  expect_refused("2 names");
}

TEST_P(OwnFiles, APipeIsRefusedAtOnce) {
  ASSERT_EQ(::mkfifo(planted_.c_str(), 0600), 0);
  expect_refused("a pipe");
}

TEST_P(OwnFiles, AnotherUsersFileIsRefusedUnlessTheFolderIsTheirsToo) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may give files away";
  constexpr uid_t kNobody = 65534;
  write_file(planted_, "");
  ASSERT_EQ(::chown(planted_.c_str(), kNobody, kNobody), 0);
  expect_refused("another user");
  ASSERT_EQ(::chown(dir_.path().c_str(), kNobody, kNobody), 0);
  EXPECT_NO_THROW(GetParam().write(planted_));
}

TEST_P(OwnFiles, OnesOwnIsWritten) {
  GetParam().write(planted_);
  EXPECT_NE(read_file(planted_), "");
}

// What is replaced takes the link's place.
TEST(ReplacedFiles, LeaveALinksVictimAsItWas) {
  const TestFolder dir;
  write_file(dir.file("victim"), "as it was");
  fs::create_symlink(dir.file("victim"), dir.file("status.json"));
  write_status(dir.path(), {});
  EXPECT_EQ(read_file(dir.file("victim")), "as it was");
  EXPECT_EQ(read_status(dir.path()).state, "running");
}

TEST(ReplacedFiles, AreMadeUnderNamesThatNobodyCanPlantLinksAt) {
  EXPECT_NE(temporary_path("a/b"), temporary_path("a/b"));
  EXPECT_TRUE(temporary_path("a/b").starts_with("a/.tmp-b-"));
}

}  // namespace
}  // namespace lockstep::testing
