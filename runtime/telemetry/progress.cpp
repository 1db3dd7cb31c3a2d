// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string_view>

#include "runtime/files/utf8.h"
#include "runtime/telemetry/metrics.h"
#include "runtime/telemetry/progress_text.h"
#include "runtime/telemetry/say.h"

namespace lockstep {
namespace {

constexpr double kRedrawSeconds = 0.1, kPlainSeconds = 5;

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The locale of character types, by POSIX' order of precedence.
bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (const std::string_view value = environment(name); !value.empty()) {
      for (const char* utf8 : {"UTF-8", "utf8", "UTF8", "utf-8"})
        if (value.find(utf8) != std::string_view::npos) return true;
      return false;
    }
  return false;
}

// Columns of the terminal behind a descriptor; 0 where there is none, or none of a known size.
int columns_of(int descriptor) {
  winsize size{};
  return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? static_cast<int>(size.ws_col) : 0;
}

// Columns of the terminal that this process belongs to.
int controlling_terminal_columns() {
  const int descriptor = ::open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (descriptor < 0) return 0;
  const int columns = columns_of(descriptor);
  ::close(descriptor);
  return columns;
}

// Open MPI gives every rank a pseudo-terminal as stdout, wherever its own output goes. It takes the size of
// mpirun's terminal at the start, and has none where mpirun's stdout is a file or a pipe.
bool behind_open_mpi() { return !environment("OMPI_COMM_WORLD_RANK").empty(); }

bool stdout_is_terminal() {
  if (environment("LOCKSTEP_TERMINAL") == "1") return true;
  return ::isatty(STDOUT_FILENO) == 1 && (!behind_open_mpi() || columns_of(STDOUT_FILENO) > 0);
}

// As one would type it: relative where it lies below the current folder.
std::string shown_path(const std::string& path) {
  std::error_code none;  // of a current folder that was removed
  const auto relative = std::filesystem::path(path).lexically_relative(std::filesystem::current_path(none));
  return relative.empty() || relative.begin()->string() == ".." ? path : relative.string();
}

int terminal_width() {
  // Only the terminal itself follows a resize.
  int width = behind_open_mpi() ? controlling_terminal_columns() : 0;
  if (width == 0) width = columns_of(STDOUT_FILENO);
  if (width == 0) width = controlling_terminal_columns();
  if (width == 0) width = std::atoi(std::string(environment("COLUMNS")).c_str());
  return width > 0 ? width : 80;
}

}  // namespace

Progress::Options Progress::detect() {
  Options options;
  options.terminal = stdout_is_terminal() && environment("TERM") != "dumb";
  options.unicode = options.terminal && locale_is_utf8();
  options.color = options.terminal && environment("NO_COLOR").empty();
  if (options.terminal) {
    options.width = terminal_width();
    options.current_width = terminal_width;
  }
  return options;
}

struct Progress::Impl {
  std::FILE* out;
  Options options;
  std::mutex mutex;
  ProgressState state;
  double last_print, epoch_start;
  std::optional<std::pair<double, int64_t>>
      first;             // time and steps done at the first update: what the ETA counts from
  bool live = false;     // a live line is on the screen, ...
  int live_columns = 0;  // ... this long

  double now() const {
    if (options.clock) return options.clock();
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  ProgressStyle style() const {
    return {options.current_width ? options.current_width() : options.width, options.unicode, options.color};
  }
  void print(const std::string& text) { say_styled(out, text); }
  // Back to the live line's first column. A terminal made narrower has wrapped it: up to its first row.
  std::string erase(int width) {
    if (!live) return {};
    live = false;
    const int rows = width > 0 ? (live_columns - 1) / width : 0;
    return rows > 0 ? fmt::format("\r\x1b[{}A\x1b[J", rows) : "\r\x1b[K";
  }
  void draw() {
    const ProgressStyle s = style();
    const StyledText line = live_line(state, s);
    // Overwriting in place flickers less than erasing first.
    const std::string start = live && live_columns <= s.width ? "\r" : erase(s.width);
    print(start + line.text + "\x1b[K");
    live = true;
    live_columns = line.columns;
  }
  void print_lines(const std::string& text) { print(erase(style().width) + text); }
};

Progress::Progress(std::FILE* out, Options options, int64_t epochs, int64_t steps_per_epoch)
    : impl_(std::make_unique<Impl>()) {
  impl_->out = out;
  impl_->options = std::move(options);
  impl_->state.epochs = epochs;
  impl_->state.steps_per_epoch = steps_per_epoch;
  impl_->epoch_start = impl_->last_print = impl_->now();
  if (impl_->options.terminal) impl_->last_print -= kRedrawSeconds;  // the first update draws
}

// An interrupted run leaves its last line standing.
Progress::~Progress() {
  if (impl_->live) impl_->print("\n");
}

void Progress::update(int64_t epoch, int64_t step, double loss, std::optional<double> accuracy,
                      double samples_per_second) {
  Impl& p = *impl_;
  const std::lock_guard lock(p.mutex);
  const double now = p.now();
  ProgressState& s = p.state;
  const int64_t done = (epoch - 1) * s.steps_per_epoch + step;
  if (!p.first) p.first = {now, done};
  if (now - p.last_print < (p.options.terminal ? kRedrawSeconds : kPlainSeconds)) return;
  p.last_print = now;
  s.epoch = epoch;
  s.step = step;
  s.loss = loss;
  s.accuracy = accuracy;
  s.samples_per_second = samples_per_second;
  s.seconds_left.reset();
  if (done > p.first->second)
    s.seconds_left = (now - p.first->first) / static_cast<double>(done - p.first->second) *
                     static_cast<double>(s.epochs * s.steps_per_epoch - done);
  if (p.options.terminal)
    p.draw();
  else
    p.print(plain_live_line(s) + "\n");
}

void Progress::epoch_end(int64_t epoch, const MetricsLine& training, const MetricsLine* validation) {
  Impl& p = *impl_;
  const std::lock_guard lock(p.mutex);
  const double now = p.now(), seconds = now - p.epoch_start;
  p.epoch_start = now;
  p.state.epoch = epoch;
  p.print_lines((p.options.terminal ? epoch_line(p.state, training, validation, seconds, p.style()).text
                                    : plain_epoch_line(p.state, training, validation, seconds)) +
                "\n");
}

void Progress::finish(const MetricsLine* test, double training_seconds, double samples_per_second,
                      const std::string& run_folder, const std::string& stopped_early) {
  Impl& p = *impl_;
  const std::lock_guard lock(p.mutex);
  ProgressSummary summary{{},
                          {},
                          training_seconds,
                          samples_per_second,
                          printable(shown_path(run_folder)),
                          printable(stopped_early)};
  if (test != nullptr) {
    summary.test_loss = test->loss;
    summary.test_accuracy = test->accuracy;
  }
  p.print_lines(p.options.terminal ? closing_table(summary, p.style()) : plain_closing(summary));
}

void Progress::message(const std::string& text) {
  Impl& p = *impl_;
  const std::lock_guard lock(p.mutex);
  const bool was_live = p.live;
  p.print_lines(shown_lines(text) + "\n");
  if (was_live) p.draw();
}

}  // namespace lockstep
