// One line of metrics, and where it goes: metrics.jsonl, TensorBoard, the terminal.
#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

namespace lockstep {

struct MetricsLine {
  int64_t step = 0;        // optimizer steps done
  double epoch = 0;        // epochs done, fraction included
  std::string split;       // training, validation, test
  double loss = 0;         // mean over the samples since the last line of this split
  double accuracy = 0;     // 0..1
  std::optional<double> lr;  // training only, as all below
  std::optional<double> samples_per_second, data_wait_percent, allreduce_exposed_percent;
  double seconds = 0;      // since the run began, earlier parts of a resumed run included
};

// Appends one JSON object a line; flushed per line. On resume, lines past `resume_step` are cut off first
// (they will be written again). Errors: io (74).
class MetricsWriter {
 public:
  MetricsWriter(const std::string& path, std::optional<int64_t> resume_step);
  ~MetricsWriter();
  void write(const MetricsLine& line);

 private:
  std::FILE* file_;
  std::string path_;
};

// TensorBoard event files: TFRecord framing with masked CRC-32C around tensorflow.Event protobuf messages.
class TensorBoardWriter {
 public:
  explicit TensorBoardWriter(const std::string& folder);
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
// table at the end; elsewhere plain lines, at most one every few seconds and one at each epoch's end.
class Progress {
 public:
  struct Options {
    bool terminal = false;  // isatty(stdout) unless overridden
    int width = 80;
  };
  static Options detect();
  Progress(std::FILE* out, Options options, int64_t epochs, int64_t steps_per_epoch);
  ~Progress();
  // step: within the epoch, 1-based. Redraws at most ten times a second.
  void update(int64_t epoch, int64_t step, double loss, double accuracy, double samples_per_second);
  void epoch_end(int64_t epoch, const MetricsLine& training, const MetricsLine* validation);
  // The closing table: test loss and accuracy, time, samples/s, where the run lies.
  void finish(const MetricsLine* test, double training_seconds, double samples_per_second,
              const std::string& run_folder);
  void message(const std::string& text);  // a line above the bar

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep
