// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/metrics.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

MetricsLine validation_line(int64_t step) {
  MetricsLine line;
  line.step = step;
  line.epoch = 1;
  line.split = "validation";
  line.loss = 0.5;
  line.accuracy = 0.25;
  line.seconds = 2;
  return line;
}

MetricsLine training_line(int64_t step) {
  MetricsLine line = validation_line(step);
  line.split = "training";
  line.lr = 0.1;
  line.samples_per_second = 1000;
  line.data_wait_percent = 1.5;
  line.allreduce_exposed_percent = 0;
  return line;
}

class Metrics : public ::testing::Test {
 protected:
  std::string path() const { return folder_.file("metrics.jsonl"); }
  TestFolder folder_;
};

TEST_F(Metrics, OneObjectALineInTheStatedOrder) {
  MetricsWriter writer(path(), {});
  writer.write(training_line(3));
  MetricsLine evaluated = validation_line(4);
  evaluated.confusion = {{3, 1}, {0, 4}};
  writer.write(evaluated);
  // Read while the writer lives: each line is flushed.
  EXPECT_EQ(
      read_file(path()),
      R"({"step":3,"epoch":1.0,"split":"training","loss":0.5,"accuracy":0.25,"lr":0.1,"samples_per_second":1000.0,)"
      R"("data_wait_percent":1.5,"allreduce_exposed_percent":0.0,"seconds":2.0})"
      "\n"
      R"({"step":4,"epoch":1.0,"split":"validation","loss":0.5,"accuracy":0.25,"seconds":2.0,"confusion":[[3,1],[0,4]]})"
      "\n");
}

TEST_F(Metrics, NumbersAreExactAndNonFiniteOnesNull) {
  MetricsWriter writer(path(), {});
  MetricsLine line = validation_line(1);
  line.loss = std::numeric_limits<double>::quiet_NaN();
  line.accuracy = 1.0 / 3;
  line.seconds = std::numeric_limits<double>::infinity();
  writer.write(line);
  const std::string text = read_file(path());
  EXPECT_NE(text.find("\"loss\":null,"), std::string::npos) << text;
  EXPECT_NE(text.find("\"seconds\":null}"), std::string::npos) << text;
  const size_t at = text.find("\"accuracy\":") + 11;
  EXPECT_EQ(std::stod(text.substr(at)), 1.0 / 3);
}

TEST_F(Metrics, AFreshRunEmptiesTheFile) {
  write_file(path(), "old\n");
  MetricsWriter(path(), {}).write(validation_line(1));
  EXPECT_EQ(read_file(path()).find("old"), std::string::npos);
}

TEST_F(Metrics, ResumeCutsWhatWillBeWrittenAgain) {
  {
    MetricsWriter writer(path(), {});
    for (int64_t step : {1, 2, 2, 3, 4}) writer.write(validation_line(step));
  }
  const std::string whole = read_file(path());
  const auto lines = [&](size_t count) {
    size_t end = 0;
    for (size_t i = 0; i < count; ++i) end = whole.find('\n', end) + 1;
    return whole.substr(0, end);
  };
  for (const auto& [step, kept] :
       {std::pair<int64_t, size_t>{4, 5}, {3, 4}, {2, 3}, {1, 1}, {0, 0}, {9, 5}}) {
    write_file(path(), whole);
    const MetricsWriter cut(path(), step);
    EXPECT_EQ(read_file(path()), lines(kept)) << "step " << step;
  }
  // Wherever a crash has torn the last line, and whatever it has left behind it.
  for (size_t size = 0; size < whole.size(); ++size) {
    for (const std::string& tail : {std::string(), std::string(100, '\0'), std::string("\n{}\n")}) {
      write_file(path(), whole.substr(0, size) + tail);
      const MetricsWriter cut(path(), 9);
      const std::string kept = read_file(path());
      const auto whole_lines =
          std::count(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size), '\n');
      // A line torn exactly before its end is whole again where a line end follows.
      const bool healed = !tail.empty() && tail[0] == '\n' && whole[size] == '\n';
      ASSERT_EQ(kept, lines(static_cast<size_t>(whole_lines) + (healed ? 1 : 0))) << "torn at " << size;
    }
  }
  MetricsWriter(path(), 9).write(validation_line(10));
  EXPECT_TRUE(read_file(path()).ends_with("\"seconds\":2.0}\n"));
  std::filesystem::remove(path());
  MetricsWriter(path(), 5).write(validation_line(6));  // deleted by someone: starts anew
  EXPECT_EQ(std::ranges::count(read_file(path()), '\n'), 1);
}

TEST_F(Metrics, WhatCannotBeWrittenIsAnError) {
  expect_error(
      Exit::cannot_create, [&] { MetricsWriter(folder_.file("none/metrics.jsonl"), {}); },
      "none/metrics.jsonl");
  // A limit on files' sizes stands for a full disk, in a child that ends with it.
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit size{10, 10};
    if (::setrlimit(RLIMIT_FSIZE, &size) != 0) ::_exit(2);
    const auto error = error_of([&] { MetricsWriter(path(), {}).write(validation_line(1)); });
    ::_exit(error && error->exit() == Exit::io && std::string(error->what()).find(path()) != std::string::npos
                ? 0
                : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace lockstep::testing
