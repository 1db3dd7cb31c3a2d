// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/run_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/files/path.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace fs = std::filesystem;
namespace {

// A run that has begun.
std::string begun(RunFolder folder) {
  write_status(folder.path(), {});
  return folder.path();
}

TEST(RunFolder, NumbersRunsAboveTheHighest) {
  const TestFolder dir;
  const std::string runs = dir.file("a/b");
  EXPECT_EQ(begun(RunFolder::create(runs, "mnist", "")), runs + "/mnist-001");
  EXPECT_EQ(begun(RunFolder::create(runs, "mnist", "")), runs + "/mnist-002");
  EXPECT_EQ(begun(RunFolder::create(runs, "other", "")), runs + "/other-001");
  for (const char* name : {"mnist-0x9", "mnist-", "mnist-big-007", "mnist-041"})
    fs::create_directory(runs + "/" + name);
  EXPECT_EQ(RunFolder::create(runs, "mnist", "").file("job.yaml"), runs + "/mnist-042/job.yaml");
  // 041 and 042 hold nothing to resume.
  EXPECT_EQ(RunFolder::open(runs, "mnist", "").path(), runs + "/mnist-002");
  EXPECT_EQ(RunFolder::open(runs, "other", "").path(), runs + "/other-001");
}

TEST(RunFolder, ExactFolderIsUsedOnce) {
  const TestFolder dir;
  const std::string exact = dir.file("mine");
  expect_error(
      Exit::no_input, [&] { RunFolder::open(dir.path(), "mnist", exact); }, exact);
  { RunFolder::create(dir.path(), "mnist", exact); }
  { RunFolder::create(dir.path(), "mnist", exact); }  // the first left nothing but its lock
  begun(RunFolder::create(dir.path(), "mnist", exact));
  expect_error(
      Exit::cannot_create, [&] { RunFolder::create(dir.path(), "mnist", exact); }, exact, "--resume");
  EXPECT_EQ(RunFolder::open(dir.path(), "mnist", exact).path(), exact);
  expect_error(
      Exit::no_input, [&] { RunFolder::open(dir.path(), "nothing", ""); }, dir.path(), "nothing");
  expect_error(
      Exit::no_input, [&] { RunFolder::open(dir.file("none"), "mnist", ""); }, dir.file("none"));
}

TEST(RunFolder, AnotherJobsLockIsRefusedNamingItsProcess) {
  const TestFolder dir;
  const std::string path = begun(RunFolder::create(dir.path(), "mnist", ""));
  int ready[2], done[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(done), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunFolder folder = RunFolder::open(dir.path(), "mnist", "");
    char c = 'r';
    const bool told = ::write(ready[1], &c, 1) == 1 && ::read(done[0], &c, 1) == 1;
    ::_exit(told ? 0 : 1);
  }
  char c = 0;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::string owner = "pid " + std::to_string(child) + " on " + host;
  expect_error(
      Exit::cannot_create, [&] { RunFolder::open(dir.path(), "mnist", ""); }, path, owner);
  expect_error(
      Exit::cannot_create, [&] { RunFolder::create(dir.path(), "mnist", path); }, path, owner);
  ASSERT_EQ(::write(done[1], "d", 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(RunFolder::open(dir.path(), "mnist", "").path(), path);  // freed by the owner's death
}

TEST(RunFolder, MovedFolderKeepsTheLock) {
  const TestFolder dir;
  RunFolder first = RunFolder::create(dir.path(), "mnist", "");
  const std::string path = first.path();
  RunFolder second = std::move(first);
  expect_error(
      Exit::cannot_create, [&] { RunFolder::create(dir.path(), "mnist", path); }, "in use");
  second = RunFolder::create(dir.path(), "mnist", "");
  EXPECT_EQ(RunFolder::create(dir.path(), "mnist", path).path(), path);
}

TEST(RunFolder, WhatCannotBeCreatedIs73) {
  const TestFolder dir;
  write_file(dir.file("file"), "");
  expect_error(
      Exit::cannot_create, [&] { RunFolder::create(dir.file("file/runs"), "mnist", ""); }, "file/runs");
  expect_error(
      Exit::cannot_create, [&] { RunFolder::create(dir.path(), "mnist", dir.file("file")); }, "file");
  expect_error(
      Exit::cannot_create, [&] { RunFolder::create("/proc/no-such", "mnist", ""); }, "/proc/no-such");
  // No permission, also where the tests are run by root: a child gives its rights up.
  fs::permissions(dir.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_exec);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(2);
    const auto error = error_of([&] { RunFolder::create(dir.file("runs"), "mnist", ""); });
    ::_exit(error && error->exit() == Exit::cannot_create ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  fs::permissions(dir.path(), fs::perms::owner_all);
}

TEST(RunFolder, ResumeRemovesWhatADeadWriterLeft) {
  const TestFolder dir;
  const std::string path = begun(RunFolder::create(dir.path(), "mnist", ""));
  const auto leave = [](const std::string& folder) {
    fs::create_directories(folder + "/checkpoints/.tmp-step-00000002-0a1b/tokenizer");
    write_file(folder + "/checkpoints/.tmp-step-00000002-0a1b/meta.json", "{");
    fs::create_directories(folder + "/samples");
    write_file(folder + "/samples/.tmp-step-00000002.png-0a1b", "");
    write_file(folder + "/.tmp-status.json-1-2", "{");
    write_file(folder + "/.tmp-notes", "a person's");
    write_file(folder + "/.tmp-my-notes", "a person's");
  };
  const std::vector<std::string> others{".lock", ".tmp-my-notes", ".tmp-notes", "checkpoints", "samples"};
  leave(path);
  RunFolder::open(dir.path(), "mnist", "");
  EXPECT_TRUE(names_in(path + "/checkpoints").empty());
  EXPECT_TRUE(names_in(path + "/samples").empty());
  fs::remove(path + "/status.json");
  EXPECT_EQ(names_in(path), others);
  // A run that begins in a folder where one died before it had begun. What lies behind a link is no run's.
  const std::string exact = dir.file("exact");
  leave(exact);
  fs::remove(exact + "/checkpoints/.tmp-step-00000002-0a1b/meta.json");
  fs::rename(exact + "/checkpoints", dir.file("elsewhere"));
  fs::create_directory_symlink(dir.file("elsewhere"), exact + "/linked");
  RunFolder::create(dir.path(), "mnist", exact);
  EXPECT_EQ(names_in(exact),
            (std::vector<std::string>{".lock", ".tmp-my-notes", ".tmp-notes", "linked", "samples"}));
  EXPECT_TRUE(names_in(exact + "/samples").empty());
  EXPECT_EQ(names_in(dir.file("elsewhere")).size(), 1u);
}

TEST(Status, ReadsBackWhatWasWritten) {
  const TestFolder dir;
  Status status;
  status.state = "failed";
  status.code = 80;
  status.rank = 3;
  status.step = 5'000'000'000;
  status.steps = 6'000'000'000;
  status.skipped_images = 7;
  status.op = "conv2d \"1\"";
  status.error_id = "E_DIVERGED";
  status.cause = "caf\xe9";  // not UTF-8
  status.hint = "h\n";
  write_status(dir.path(), status);
  const Status found = read_status(dir.path());
  EXPECT_EQ(found.state, "failed");
  EXPECT_EQ(found.code, 80);
  EXPECT_EQ(found.rank, 3);
  EXPECT_EQ(found.step, 5'000'000'000);
  EXPECT_EQ(found.steps, 6'000'000'000);
  EXPECT_EQ(found.skipped_images, 7);
  EXPECT_EQ(found.op, status.op);
  EXPECT_EQ(found.error_id, status.error_id);
  EXPECT_EQ(found.cause, "caf\xef\xbf\xbd");
  EXPECT_EQ(found.hint, status.hint);
  ASSERT_EQ(found.time.size(), 20u);
  EXPECT_EQ(found.time[10], 'T');
  EXPECT_EQ(found.time[19], 'Z');
}

TEST(Status, IsReadStrictly) {
  const TestFolder dir;
  expect_error(
      Exit::no_input, [&] { read_status(dir.path()); }, "status.json");
  write_status(dir.path(), {});
  const std::string good = read_file(dir.file("status.json"));
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    write_file(dir.file("status.json"), text);
    return [&] { read_status(dir.path()); };
  };
  expect_error(Exit::data, changed("\"code\": 0", "\"code\": \"0\""), "code");
  expect_error(Exit::data, changed("\"code\": 0", "\"code\": 0.5"), "code");
  expect_error(Exit::data, changed("\"code\": 0", "\"code\": 4294967296"), "code");
  expect_error(Exit::data, changed("\"step\": 0", "\"step\": 18446744073709551615"), "step");
  expect_error(Exit::data, changed("\"running\"", "\"walking\""), "walking");
  expect_error(Exit::data, changed("\"op\"", "\"opp\""), "op");
  expect_error(Exit::data, changed("\"op\": \"\"", "\"op\": \"\", \"more\": 1"), "more");
  expect_error(Exit::data, changed("}", ""), "JSON");
  expect_error(Exit::data, changed(good, "[]"), "JSON");
}

}  // namespace
}  // namespace lockstep::testing
