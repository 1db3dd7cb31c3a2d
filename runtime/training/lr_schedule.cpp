#include <cmath>
#include <numbers>

#include "runtime/training/config.h"

namespace lockstep {

double lr_at(const LrScheduleConfig& s, double lr, int64_t step, int64_t total_steps) {
  if (step < s.warmup_steps) return lr * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  const auto after = static_cast<double>(step - s.warmup_steps);
  const auto span = static_cast<double>(total_steps - s.warmup_steps);
  const double done = span > 0 ? std::min(after / span, 1.0) : 1.0;
  if (s.name == "step") return lr * std::pow(s.gamma, std::floor(static_cast<double>(step) / static_cast<double>(s.step_size)));
  if (s.name == "cosine") return lr * (s.final_lr_scale + (1 - s.final_lr_scale) * 0.5 * (1 + std::cos(std::numbers::pi * done)));
  if (s.name == "linear") return lr * (1 + (s.final_lr_scale - 1) * done);
  return lr;
}

}  // namespace lockstep
