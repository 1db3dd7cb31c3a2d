// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numbers>

#include "runtime/training/config.h"

namespace lockstep {
namespace {

double one_cycle(const LrScheduleConfig& s, double lr, int64_t step, int64_t total_steps) {
  const double at = static_cast<double>(step), last = static_cast<double>(total_steps - 1);
  const double top = s.pct_start * static_cast<double>(total_steps) - 1;
  const double first_lr = lr / s.div_factor, last_lr = first_lr / s.final_div_factor;
  const auto anneal = [&](double from, double to, double begin, double end) {
    const double done = end > begin ? (at - begin) / (end - begin) : 1;
    return s.anneal == "cos" ? to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * done))
                             : from + (to - from) * done;
  };
  return at <= top ? anneal(first_lr, lr, 0, top) : anneal(lr, last_lr, top, last);
}

}  // namespace

double lr_at(const LrScheduleConfig& s, double lr, int64_t step, int64_t total_steps) {
  if (s.name == "one_cycle") return one_cycle(s, lr, step, total_steps);
  if (step < s.warmup_steps) return lr * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  const auto after = static_cast<double>(step - s.warmup_steps);
  const auto span = static_cast<double>(total_steps - s.warmup_steps);
  const double done = span > 0 ? std::min(after / span, 1.0) : 1.0;
  if (s.name == "step")
    return lr * std::pow(s.gamma, std::floor(static_cast<double>(step) / static_cast<double>(s.step_size)));
  if (s.name == "cosine")
    return lr * (s.final_lr_scale + (1 - s.final_lr_scale) * 0.5 * (1 + std::cos(std::numbers::pi * done)));
  if (s.name == "linear") return lr * (1 + (s.final_lr_scale - 1) * done);
  return lr;
}

}  // namespace lockstep
