// SPDX-License-Identifier: Apache-2.0
// One line of metrics, and where it goes: metrics.jsonl, TensorBoard, the terminal.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/checkpoint/file_io.h"

namespace lockstep {

struct MetricsLine {
  int64_t step = 0;                // optimizer steps done
  double epoch = 0;                // epochs done, fraction included
  std::string split;               // training, validation, test
  double loss = 0;                 // mean over the samples since the last line of this split
  std::optional<double> accuracy;  // 0..1; of classification
  std::optional<double> lr;        // training only, as all below
  std::optional<double> samples_per_second, data_wait_percent, allreduce_exposed_percent;
  double seconds = 0;  // since the run began, earlier parts of a resumed run included
  std::vector<std::vector<int64_t>> confusion;  // Score::confusion; validation and test
};

// Appends one JSON object a line, keys as above and in that order, those without a value left out, non-finite
// numbers as null, `confusion` as a list of rows; one write a line. A fresh run empties the file. On resume, lines past `resume_step` are
// cut off first (they will be written again), and so is a torn last line. Errors: cannot_create (73), io
// (74).
class MetricsWriter {
 public:
  MetricsWriter(const std::string& path, std::optional<int64_t> resume_step);
  void write(const MetricsLine& line);

 private:
  OutputFile file_;
};

// TensorBoard event files: TFRecord framing with masked CRC-32C around tensorflow.Event protobuf messages.
class TensorBoardWriter {
 public:
  // A new file in `folder`. On resume, TensorBoard is told to forget what earlier files say of later steps.
  // Errors: cannot_create (73), io (74), here and below.
  explicit TensorBoardWriter(const std::string& folder, std::optional<int64_t> resume_step = {});
  ~TensorBoardWriter();
  void scalar(const std::string& tag, int64_t step, double value);
  void image_png(const std::string& tag, int64_t step, int64_t height, int64_t width, int64_t channels,
                 const std::string& png);
  void write(const MetricsLine& line);  // loss/training, accuracy/test, lr, ...
  void flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Live progress: on a terminal one line per epoch that is redrawn (bar, loss, accuracy, samples/s, ETA) and a
// table at the end; elsewhere plain lines, at most one every five seconds and one at each epoch's end. Any
// thread may call. Failures to print are ignored: a closed terminal stops no training.
class Progress {
 public:
  struct Options {
    bool terminal = false;  // stdout is one, unless overridden
    int width = 80;         // columns
    bool unicode = false;   // the locale is UTF-8
    bool color = false;     // a terminal and no NO_COLOR
    std::function<int()> current_width =
        {};                              // asked at each redraw, the terminal may be resized; none: `width`
    std::function<double()> clock = {};  // seconds, monotonic; none: the steady clock
  };
  // Of stdout, seen through the pseudo-terminal that Open MPI puts before it. LOCKSTEP_TERMINAL=1 in the
  // environment: stdout ends in a terminal, whatever it looks like (a launcher knows). TERM=dumb: it does
  // not.
  static Options detect();
  Progress(std::FILE* out, Options options, int64_t epochs, int64_t steps_per_epoch);
  ~Progress();
  // epoch, and step within it: 1-based. accuracy: 0..1. Redraws at most ten times a second.
  void update(int64_t epoch, int64_t step, double loss, std::optional<double> accuracy,
              double samples_per_second);
  void epoch_end(int64_t epoch, const MetricsLine& training, const MetricsLine* validation);
  // The closing table: test loss and accuracy, why training ended before its last step (else empty), time, samples/s,
  // where the run lies.
  void finish(const MetricsLine* test, double training_seconds, double samples_per_second,
              const std::string& run_folder, const std::string& stopped_early = {});
  void message(const std::string& text);  // a line above the bar

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep
