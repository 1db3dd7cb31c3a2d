// SPDX-License-Identifier: Apache-2.0
// What Progress prints, as pure functions of what there is to say and of the terminal.
#pragma once

#include <optional>
#include <string>

#include "runtime/telemetry/metrics.h"

namespace lockstep {

struct ProgressStyle {
  int width = 80;  // columns; a line takes at most width - 1, so that the cursor never wraps
  bool unicode = false, color = false;
};

struct ProgressState {
  int64_t epoch = 1, epochs = 1, step = 0, steps_per_epoch = 1;
  double loss = 0, samples_per_second = 0;
  std::optional<double> accuracy;
  std::optional<double> seconds_left;  // of the whole training
};

struct ProgressSummary {
  std::optional<double> test_loss, test_accuracy;
  double training_seconds = 0, samples_per_second = 0;
  std::string run_folder, stopped_early;
};

struct StyledText {
  std::string text;  // with escape sequences
  int columns = 0;
};

//   Epoch 3/10  ━━━━━━━━╸━━━━━━  64%  loss 0.1234  acc 97.12%  34.2k samples/s  ETA 0:42
// What does not fit is left out: the share done first (the bar shows it), then samples/s, ETA, accuracy,
// loss.
StyledText live_line(const ProgressState& state, const ProgressStyle& style);
// ✓ Epoch 3/10  loss 0.1234  acc 97.12%   validation  loss 0.1021  acc 97.80%   0:12  34.2k samples/s
StyledText epoch_line(const ProgressState& state, const MetricsLine& training, const MetricsLine* validation,
                      double seconds, const ProgressStyle& style);
// Several lines, each ended; framed where the width allows.
std::string closing_table(const ProgressSummary& summary, const ProgressStyle& style);

std::string plain_live_line(const ProgressState& state);
std::string plain_epoch_line(const ProgressState& state, const MetricsLine& training,
                             const MetricsLine* validation, double seconds);
std::string plain_closing(const ProgressSummary& summary);

std::string duration_text(double seconds);  // "7.3 s", "1:05", "2:03:09"
std::string rate_text(double per_second);   // "87.5", "4,210", "34.2k", "1.25M"

}  // namespace lockstep
