// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "runtime/training/config.h"

namespace lockstep {

double ema_decay(const EmaConfig& ema, int64_t optimizer_steps) {
  const auto n = static_cast<double>(std::max<int64_t>(0, optimizer_steps - ema.update_after_step - 1));
  if (n <= 0) return 0;
  const double rising = ema.warmup ? 1 - std::pow(1 + n / ema.inv_gamma, -ema.power) : (1 + n) / (10 + n);
  return std::max(std::min(rising, ema.decay.value()), ema.min_decay);
}

}  // namespace lockstep
