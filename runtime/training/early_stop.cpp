// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/early_stop.h"

#include <fmt/format.h>

#include <cmath>

#include "runtime/files/json_value.h"

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
      state_.reason = fmt::format("{} {:.6g} has reached {:.6g}", config_.metric, value, *config_.at);
    return;
  }
  const double gain = state_.best ? (is_loss() ? *state_.best - value : value - *state_.best) : 0;
  if (std::isfinite(value) && (!state_.best || gain > config_.min_delta)) {
    state_.best = value;
    state_.without_better = 0;
  } else if (++state_.without_better >= *config_.patience) {
    state_.reason = fmt::format("{} has not got better than {:.6g} in {} looks", config_.metric,
                                state_.best.value_or(value), state_.without_better);
  }
}

nlohmann::json EarlyStop::state() const {
  nlohmann::json state = {{"without_better", state_.without_better}};
  if (state_.best) state["best"] = *state_.best;
  if (stopped()) state["reason"] = state_.reason;
  return state;
}

EarlyStop::State EarlyStop::read_state(const nlohmann::json& stop, const std::string& file) {
  State s;
  s.without_better = json_get<int64_t>(stop, "without_better", file, "stop.");
  if (stop.contains("best")) s.best = json_get<double>(stop, "best", file, "stop.");
  s.reason = json_get_or<std::string>(stop, "reason", "", file, "stop.");
  return s;
}

}  // namespace lockstep
