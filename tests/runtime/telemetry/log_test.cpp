// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/log.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <sstream>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

class Log : public ::testing::Test {
 protected:
  ~Log() override {
    route_warnings({});
    open_log("", 0, 1);
  }
  TestFolder folder_;
};

TEST_F(Log, AllGoesToTheFileAndWarningsToThePerson) {
  const std::string path = folder_.file("log.txt");
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  open_log(path, 2, 4);
  spdlog::info("started");
  spdlog::warn("slow");
  spdlog::debug("unheard");
  spdlog::error("failed");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning: rank 2: slow\nerror: rank 2: failed\n");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  std::istringstream lines(read_file(path));
  std::string without_times;
  for (std::string line; std::getline(lines, line);) {
    std::string time = line.substr(0, 25);
    for (char& c : time)
      if (c >= '0' && c <= '9') c = '0';
    EXPECT_EQ(time, "0000-00-00T00:00:00.000Z ") << line;
    without_times += line.substr(time.size()) + "\n";
  }
  EXPECT_EQ(without_times, "[rank 2] info: started\n[rank 2] warning: slow\n[rank 2] error: failed\n");
}

TEST_F(Log, TheFileIsUtf8WhateverFilesAreCalled) {
  open_log(folder_.file("log.txt"), 0, 1);
  spdlog::info("read d\xf6g\xe2\x82.png and dög.png");
  const std::string text = read_file(folder_.file("log.txt"));
  EXPECT_TRUE(text.ends_with("] info: read d\\xf6g\\xe2\\x82.png and dög.png\n")) << text;
}

TEST_F(Log, NamesOrderNoTerminalAbout) {
  open_log(folder_.file("log.txt"), 0, 1);
  ::testing::internal::CaptureStderr();
  spdlog::warn("read a\x1b[31m.png, b\u009b2J.png\tand c");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning: read a\\x1b[31m.png, b\\x9b2J.png\tand c\n");
  const std::string text = read_file(folder_.file("log.txt"));
  EXPECT_TRUE(text.ends_with("] warning: read a\\x1b[31m.png, b\\x9b2J.png\tand c\n")) << text;
}

TEST_F(Log, RanksShareTheFile) {
  const std::string path = folder_.file("log.txt");
  for (int rank : {0, 1, 0}) {
    open_log(path, rank, 2);
    spdlog::info("here");
  }
  const std::string text = read_file(path);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << "opening must append: " << text;
}

TEST_F(Log, OneRankNeedsNoNumberAndALiveLineMayTakeTheWarnings) {
  std::vector<std::string> routed;
  open_log("", 0, 1);
  route_warnings([&](const std::string& text) { routed.push_back(text); });
  ::testing::internal::CaptureStderr();
  spdlog::warn("one");
  spdlog::info("not for the person");
  route_warnings({});
  spdlog::warn("two");
  EXPECT_EQ(routed, (std::vector<std::string>{"warning: one"}));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning: two\n");
}

TEST_F(Log, AFileThatCannotBeCreatedIsAnError) {
  write_file(folder_.file("f"), "");
  expect_error(
      Exit::cannot_create, [&] { open_log(folder_.file("f/log.txt"), 0, 1); }, "f/log.txt");
}

}  // namespace
}  // namespace lockstep::testing
