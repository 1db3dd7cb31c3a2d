// SPDX-License-Identifier: Apache-2.0
// The rule by which training ends early. It sees global scores only, and its state is in the checkpoints: resuming and the
// number of ranks do not change when it stops.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/training/config.h"
#include "runtime/training/evaluation.h"

namespace lockstep {

class EarlyStop {
 public:
  explicit EarlyStop(StopConfig config) : config_(std::move(config)) {}

  bool on_test() const { return config_.metric.starts_with("test_"); }
  // Whether to look after so many steps.
  bool looks_after(int64_t steps, int64_t steps_per_epoch) const;
  void look(const Score& score);
  bool stopped() const { return !state_.reason.empty(); }
  // "validation_accuracy 0.9812 has reached 0.98"
  const std::string& reason() const { return state_.reason; }

  struct State {
    std::optional<double> best;
    int64_t without_better = 0;
    std::string reason;
  };
  nlohmann::json state() const;
  // Of a checkpoint's "stop". Error data (65), naming file and key.
  static State read_state(const nlohmann::json& stop, const std::string& file);
  void restore(State state) { state_ = std::move(state); }

 private:
  bool is_loss() const { return config_.metric.ends_with("_loss"); }
  StopConfig config_;
  State state_;
};

}  // namespace lockstep
