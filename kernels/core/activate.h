// SPDX-License-Identifier: Apache-2.0
// What each Activation computes, in double: for references.
#pragma once

#include <cmath>
#include <numbers>

#include "kernels/core/activation.h"

namespace lockstep {

inline double activate(Activation a, double v) {
  switch (a) {
    case Activation::none:
      return v;
    case Activation::relu:
      return v < 0 ? 0 : v;  // NaN stays NaN
    case Activation::silu:
      return v / (1 + std::exp(-v));
    case Activation::gelu:
      return 0.5 * v * std::erfc(-v / std::numbers::sqrt2);
    case Activation::quick_gelu:
      return v / (1 + std::exp(-double{kQuickGelu} * v));
    case Activation::tanh:
      return std::tanh(v);
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-v));
  }
  return v;
}

}  // namespace lockstep
