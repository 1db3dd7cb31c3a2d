// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/progress_text.h"

namespace lockstep::testing {
namespace {

// What a terminal of `width` columns shows after `text`: just enough of one for what Progress sends.
class Screen {
 public:
  explicit Screen(int width) : width_(static_cast<size_t>(width)) {}
  void print(const std::string& text) {
    for (size_t i = 0; i < text.size(); ++i) {
      const auto c = static_cast<unsigned char>(text[i]);
      if (c == '\x1b') {
        const size_t end = text.find_first_of("ABCDEFGHJKm", i);
        const int number = std::atoi(text.c_str() + i + 2);
        if (text[end] == 'A') row_ -= static_cast<size_t>(number);
        if (text[end] == 'K' || text[end] == 'J') row(row_).resize(std::min(row(row_).size(), column_));
        if (text[end] == 'J') rows_.resize(row_ + 1);
        i = end;
      } else if (c == '\r') {
        column_ = 0;
      } else if (c == '\n') {
        ++row_, column_ = 0;
      } else if ((c & 0xc0) == 0x80) {
        row(row_)[column_ - 1] += text[i];
      } else {
        if (column_ == width_) ++row_, column_ = 0;
        row(row_).resize(std::max(row(row_).size(), column_ + 1), " ");
        row(row_)[column_++] = text[i];
      }
    }
  }
  // Narrower: the terminal wraps what is there (only the last row can be too long here).
  void resize(int width) {
    width_ = static_cast<size_t>(width);
    while (row(row_).size() > width_) {
      const auto cells = row(row_);
      const auto middle = cells.begin() + static_cast<std::ptrdiff_t>(width_);
      row(row_).assign(cells.begin(), middle);
      ++row_;
      row(row_).assign(middle, cells.end());
      column_ = row(row_).size();
    }
  }
  std::vector<std::string> lines() const {
    std::vector<std::string> out;
    for (const auto& cells : rows_) {
      out.emplace_back();
      for (const auto& cell : cells) out.back() += cell;
    }
    return out;
  }

 private:
  std::vector<std::string>& row(size_t i) {
    if (rows_.size() <= i) rows_.resize(i + 1);
    return rows_[i];
  }
  size_t width_, row_ = 0, column_ = 0;
  std::vector<std::vector<std::string>> rows_;
};

int columns(const std::string& text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

ProgressState sample_state() {
  ProgressState s;
  s.epoch = 3;
  s.epochs = 10;
  s.step = 300;
  s.steps_per_epoch = 469;
  s.loss = 0.12345;
  s.accuracy = 0.97123;
  s.samples_per_second = 34210;
  s.seconds_left = 42;
  return s;
}

MetricsLine line_of(double loss, double accuracy, std::optional<double> rate = {}) {
  MetricsLine line;
  line.loss = loss;
  line.accuracy = accuracy;
  line.samples_per_second = rate;
  return line;
}

TEST(ProgressText, LiveLine) {
  EXPECT_EQ(live_line(sample_state(), {80, true, false}).text,
            "  Epoch  3/10  ━━━━━━━╸────  loss 0.1235  acc 97.12%  34.2k samples/s  ETA 0:42");
  EXPECT_EQ(live_line(sample_state(), {80, false, false}).text,
            "  Epoch  3/10  [######....]  loss 0.1235  acc 97.12%  34.2k samples/s  ETA 0:42");
  EXPECT_EQ(live_line(sample_state(), {84, true, true}).text,
            "\x1b[1m  Epoch  3/10\x1b[0m  \x1b[36m━━━━━━━\x1b[0m\x1b[2m━━━━\x1b[0m  63%  \x1b[2mloss\x1b[0m "
            "0.1235  \x1b[2macc\x1b[0m 97.12%  34.2k\x1b[2m samples/s\x1b[0m  \x1b[2mETA\x1b[0m 0:42");
  EXPECT_EQ(live_line(sample_state(), {60, false, false}).text,
            "  Epoch  3/10  [####...]  loss 0.1235  acc 97.12%  ETA 0:42");
}

TEST(ProgressText, LinesFitEveryWidth) {
  const MetricsLine training = line_of(0.5, 0.9, 34210), validation = line_of(0.4, 0.95);
  for (int width = 1; width <= 200; ++width)
    for (bool unicode : {false, true})
      for (double loss : {0.5, 1e-9, 123456.0, std::numeric_limits<double>::quiet_NaN()}) {
        ProgressState s = sample_state();
        s.loss = loss;
        const StyledText live = live_line(s, {width, unicode, false});
        ASSERT_LT(columns(live.text), width) << live.text;
        ASSERT_EQ(columns(live.text), live.columns);
        const StyledText colored = live_line(s, {width, unicode, true});
        ASSERT_EQ(colored.columns, live.columns);
        const StyledText epoch = epoch_line(s, training, &validation, 12, {width, unicode, false});
        ASSERT_LT(columns(epoch.text), width) << epoch.text;
        ASSERT_EQ(columns(epoch.text), epoch.columns);
      }
}

TEST(ProgressText, BarIsEmptyThenFull) {
  ProgressState s = sample_state();
  s.step = 0;
  EXPECT_EQ(live_line(s, {200, true, false}).text.find("━"), std::string::npos);
  s.step = 469;
  EXPECT_EQ(live_line(s, {200, true, false}).text.find("─"), std::string::npos);
  s.step = 1000;  // more than stated: full, no overrun
  EXPECT_LT(live_line(s, {200, true, false}).columns, 200);
}

TEST(ProgressText, EpochLine) {
  const MetricsLine training = line_of(0.12345, 0.97123, 34210), validation = line_of(0.1, 0.975);
  EXPECT_EQ(
      epoch_line(sample_state(), training, &validation, 7.31, {120, true, false}).text,
      "✓ Epoch  3/10  loss 0.1235  acc 97.12%   validation loss 0.1000  acc 97.50%   7.3 s  34.2k samples/s");
  EXPECT_EQ(epoch_line(sample_state(), training, nullptr, 75, {120, false, false}).text,
            "* Epoch  3/10  loss 0.1235  acc 97.12%   1:15  34.2k samples/s");
}

TEST(ProgressText, ClosingTable) {
  const ProgressSummary summary{0.0345, 0.9891, 12.34, 34210, "runs/mnist-001"};
  EXPECT_EQ(closing_table(summary, {80, true, false}),
            "╭───────────────────────────────────╮\n"
            "│  Test accuracy   98.91%           │\n"
            "│  Test loss       0.0345           │\n"
            "│  Training time   12.3 s           │\n"
            "│  Throughput      34.2k samples/s  │\n"
            "│  Run folder      runs/mnist-001   │\n"
            "╰───────────────────────────────────╯\n");
  EXPECT_EQ(closing_table(summary, {30, false, false}).find('|'), std::string::npos);  // no room for a frame
  EXPECT_EQ(plain_closing(summary),
            "Test accuracy  98.91%\nTest loss      0.0345\nTraining time  12.3 s\n"
            "Throughput     34.2k samples/s\nRun folder     runs/mnist-001\n");
  EXPECT_EQ(plain_closing({{}, {}, 1, 2, "r"}).find("Test"), std::string::npos);
}

TEST(ProgressText, Numbers) {
  EXPECT_EQ(duration_text(0.04), "0.0 s");
  EXPECT_EQ(duration_text(59.94), "59.9 s");
  EXPECT_EQ(duration_text(59.96), "1:00");
  EXPECT_EQ(duration_text(3599.6), "1:00:00");
  EXPECT_EQ(duration_text(7389), "2:03:09");
  EXPECT_EQ(duration_text(std::numeric_limits<double>::quiet_NaN()), "-:--");
  EXPECT_EQ(rate_text(0.5), "0.5");
  EXPECT_EQ(rate_text(99.96), "100");
  EXPECT_EQ(rate_text(999.6), "1,000");
  EXPECT_EQ(rate_text(9999.4), "9,999");
  EXPECT_EQ(rate_text(9999.6), "10.0k");
  EXPECT_EQ(rate_text(999'960), "1.00M");
  EXPECT_EQ(rate_text(std::numeric_limits<double>::infinity()), "-");
}

// Progress into a string, on a clock of ours.
class ProgressTest : public ::testing::Test {
 protected:
  ProgressTest() : file_(::open_memstream(&buffer_, &size_)) {}
  ~ProgressTest() override {
    std::fclose(file_);
    std::free(buffer_);
  }
  Progress make(bool terminal, int64_t epochs, int64_t steps) {
    Progress::Options options;
    options.terminal = terminal;
    options.current_width = [this] { return width_; };
    options.clock = [this] { return now_; };
    return Progress(file_, options, epochs, steps);
  }
  // What was printed since the last call.
  std::string take() {
    std::fflush(file_);
    std::string text(buffer_ + taken_, size_ - taken_);
    taken_ = size_;
    return text;
  }
  char* buffer_ = nullptr;
  size_t size_ = 0, taken_ = 0;
  std::FILE* file_;
  double now_ = 1000;
  int width_ = 80;
};

TEST_F(ProgressTest, TerminalRedrawsAtMostTenTimesASecond) {
  Progress progress = make(true, 1, 1000);
  int redraws = 0;
  for (int step = 1; step <= 1000; ++step, now_ += 0.003) {
    progress.update(1, step, 1, 0.5, 100);
    redraws += !take().empty();
  }
  EXPECT_LE(redraws, 31);  // three seconds
  EXPECT_GE(redraws, 25);
}

TEST_F(ProgressTest, TerminalShowsOneLineAnEpochAndTheTable) {
  Screen screen(80);
  {
    Progress progress = make(true, 2, 10);
    for (int epoch = 1; epoch <= 2; ++epoch) {
      for (int step = 1; step <= 10; ++step, now_ += 1) {
        progress.update(epoch, step, 1, 0.5, 100);
        screen.print(take());
        EXPECT_EQ(screen.lines().size(), epoch == 1 ? 1u : 3u);  // with the message and the first epoch's
      }
      if (epoch == 1) progress.message("a message");
      screen.print(take());
      if (epoch == 1) {
        EXPECT_EQ(screen.lines()[0], "a message");
        EXPECT_EQ(screen.lines()[1].find("  Epoch 1/2  ["), 0u) << screen.lines()[1];
      }
      const MetricsLine training = line_of(0.5, 0.75);
      progress.epoch_end(epoch, training, nullptr);
      screen.print(take());
    }
    const MetricsLine test = line_of(0.25, 0.875);
    progress.finish(&test, 20, 100, "runs/x");
  }
  screen.print(take());
  const auto lines = screen.lines();
  ASSERT_EQ(lines.size(), 10u);
  EXPECT_EQ(lines[0], "a message");
  EXPECT_EQ(lines[1], "* Epoch 1/2  loss 0.5000  acc 75.00%   10.0 s");
  EXPECT_EQ(lines[2], "* Epoch 2/2  loss 0.5000  acc 75.00%   10.0 s");
  EXPECT_EQ(lines[4], "|  Test accuracy   87.50%         |");
}

TEST_F(ProgressTest, EtaIsOfTheWholeTraining) {
  Progress progress = make(true, 4, 10);
  progress.update(2, 6, 1, 0.5, 100);  // resumed in the second epoch
  EXPECT_NE(take().find("ETA -:--"), std::string::npos);
  now_ += 6;
  progress.update(2, 9, 1, 0.5, 100);  // two seconds a step, 21 to go
  EXPECT_NE(take().find("ETA 0:42"), std::string::npos);
}

TEST_F(ProgressTest, ANarrowedTerminalKeepsNoRemains) {
  Screen screen(80);
  Progress progress = make(true, 1, 10);
  progress.message("above");
  progress.update(1, 1, 1, 0.5, 100);
  screen.print(take());
  for (int width : {79, 50, 30, 20, 12, 40, 100}) {
    screen.resize(width_ = width);
    now_ += 1;
    progress.update(1, 2, 1, 0.5, 100);
    screen.print(take());
    const auto lines = screen.lines();
    ASSERT_EQ(lines.size(), 2u) << "width " << width;
    EXPECT_EQ(lines[0], "above");
    EXPECT_EQ(lines[1].find("  Epoch 1/1"), 0u) << lines[1];
    EXPECT_LT(columns(lines[1]), width);
  }
}

TEST_F(ProgressTest, InterruptedLineIsEnded) {
  {
    Progress progress = make(true, 1, 10);
    progress.update(1, 1, 1, 0.5, 100);
    EXPECT_FALSE(take().ends_with("\n"));
  }
  EXPECT_EQ(take(), "\n");
}

TEST_F(ProgressTest, TheRunFolderIsShownAsOneWouldTypeIt) {
  const auto shown = [&](const std::filesystem::path& folder) {
    make(false, 1, 1).finish(nullptr, 1, 1, folder.string());
    const std::string text = take();
    return text.substr(text.find("Run folder"));
  };
  const auto here = std::filesystem::current_path();
  EXPECT_EQ(shown(here / "runs/x"), "Run folder     runs/x\n");
  EXPECT_EQ(shown(here.parent_path() / "runs/x"),
            "Run folder     " + (here.parent_path() / "runs/x").string() + "\n");
}

TEST_F(ProgressTest, ElsewherePlainLinesEveryFiveSeconds) {
  std::string text;
  {
    Progress progress = make(false, 2, 100);
    for (int epoch = 1; epoch <= 2; ++epoch) {
      for (int step = 1; step <= 100; ++step) {
        now_ += 0.11;
        progress.update(epoch, step, 0.5, 0.75, 1234);
      }
      const MetricsLine training = line_of(0.5, 0.75, 1234), validation = line_of(0.25, 0.875);
      progress.epoch_end(epoch, training, &validation);
    }
    progress.finish(nullptr, 22, 1234, "runs/x");
    text = take();
  }
  EXPECT_EQ(text.find_first_of("\r\x1b"), std::string::npos);
  EXPECT_EQ(
      text,
      "epoch 1/2 step 46/100: loss 0.5000 accuracy 75.00%, 1,234 samples/s, 16.9 s left\n"
      "epoch 1/2 step 92/100: loss 0.5000 accuracy 75.00%, 1,234 samples/s, 11.9 s left\n"
      "epoch 1/2 done: training loss 0.5000 accuracy 75.00%, validation loss 0.2500 accuracy 87.50%, 11.0 s, "
      "1,234 samples/s\n"
      "epoch 2/2 step 38/100: loss 0.5000 accuracy 75.00%, 1,234 samples/s, 6.8 s left\n"
      "epoch 2/2 step 84/100: loss 0.5000 accuracy 75.00%, 1,234 samples/s, 1.8 s left\n"
      "epoch 2/2 done: training loss 0.5000 accuracy 75.00%, validation loss 0.2500 accuracy 87.50%, 11.0 s, "
      "1,234 samples/s\n"
      "Training time  22.0 s\nThroughput     1,234 samples/s\nRun folder     runs/x\n");
}

TEST(ProgressOptions, FollowTheEnvironment) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "NO_COLOR", "LOCKSTEP_TERMINAL"}) ::unsetenv(name);
  ::setenv("TERM", "xterm", 1);
  ::setenv("LANG", "C.UTF-8", 1);
  ::setenv("LOCKSTEP_TERMINAL", "1", 1);
  Progress::Options o = Progress::detect();
  EXPECT_TRUE(o.terminal && o.unicode && o.color);
  EXPECT_GT(o.width, 0);
  ::setenv("NO_COLOR", "1", 1);
  ::setenv("LC_ALL", "C", 1);  // before LANG
  o = Progress::detect();
  EXPECT_TRUE(o.terminal && !o.unicode && !o.color);
  ::setenv("TERM", "dumb", 1);
  EXPECT_FALSE(Progress::detect().terminal);
  for (const char* name : {"LC_ALL", "NO_COLOR", "LOCKSTEP_TERMINAL"}) ::unsetenv(name);
}

// detect() in a child of its own session, whose stdout is a pseudo-terminal of so many columns.
int detected_width(int columns_there, bool behind_open_mpi) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) return -2;
  const std::string name = ::ptsname(master);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    const int terminal = ::open(name.c_str(), O_RDWR | O_NOCTTY);
    winsize size{};
    size.ws_col = static_cast<unsigned short>(columns_there);
    ::ioctl(terminal, TIOCSWINSZ, &size);
    ::dup2(terminal, STDOUT_FILENO);
    ::setenv("TERM", "xterm", 1);
    for (const char* variable : {"LOCKSTEP_TERMINAL", "OMPI_COMM_WORLD_RANK", "COLUMNS"})
      ::unsetenv(variable);
    if (behind_open_mpi) ::setenv("OMPI_COMM_WORLD_RANK", "0", 1);
    const Progress::Options options = Progress::detect();
    ::_exit(options.terminal ? options.current_width() : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(master);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ProgressOptions, SeeThroughOpenMpisPseudoTerminal) {
  EXPECT_EQ(detected_width(123, false), 123);
  EXPECT_EQ(detected_width(123, true), 123);
  EXPECT_EQ(detected_width(0, true), 0) << "mpirun's output goes to a file or a pipe: plain lines";
  EXPECT_EQ(detected_width(0, false), 80) << "a terminal that does not know its size";
}

}  // namespace
}  // namespace lockstep::testing
