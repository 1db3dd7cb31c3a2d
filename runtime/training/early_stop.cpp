// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/early_stop.h"

#include <fmt/format.h>

#include <cmath>

namespace lockstep {

bool EarlyStop::looks_after(int64_t steps, int64_t steps_per_epoch) const {
  if (config_.metric.empty() || stopped()) return false;
  if (config_.every_steps) return steps % *config_.every_steps == 0;
  return steps % (steps_per_epoch * config_.every_epochs.value_or(1)) == 0;
}

void EarlyStop::look(const Score& score) {
  const double value = is_loss() ? score.loss : score.accuracy.value();
  if (config_.at) {
    if (is_loss() ? value <= *config_.at : value >= *config_.at)
      reason_ = fmt::format("{} {:.6g} has reached {:.6g}", config_.metric, value, *config_.at);
    return;
  }
  const double gain = best_ ? (is_loss() ? *best_ - value : value - *best_) : 0;
  if (std::isfinite(value) && (!best_ || gain > config_.min_delta)) {
    best_ = value;
    without_better_ = 0;
  } else if (++without_better_ >= *config_.patience) {
    reason_ = fmt::format("{} has not got better than {:.6g} in {} looks", config_.metric,
                          best_.value_or(value), without_better_);
  }
}

nlohmann::json EarlyStop::state() const {
  nlohmann::json state = {{"without_better", without_better_}};
  if (best_) state["best"] = *best_;
  if (stopped()) state["reason"] = reason_;
  return state;
}

void EarlyStop::restore(const nlohmann::json& state) {
  without_better_ = state.at("without_better");
  if (state.contains("best")) best_ = state.at("best").get<double>();
  reason_ = state.value("reason", "");
}

}  // namespace lockstep
