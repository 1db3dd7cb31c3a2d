// SPDX-License-Identifier: Apache-2.0
// Activations at the end of a convolution or matrix product.
#pragma once

#include "kernels/core/activation.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

__device__ inline float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678f * x); }
// The slope of x cdf(x), the exact GELU.
__device__ inline float gelu_slope(float x) { return normal_cdf(x) + x * 0.39894228f * expf(-0.5f * x * x); }

__device__ inline float activate(Activation a, float v) {
  switch (a) {
    case Activation::none:
      return v;
    case Activation::relu:
      return v < 0 ? 0 : v;  // NaN stays NaN
    case Activation::silu:
      return v / (1 + expf(-v));
    case Activation::gelu:
      return v * normal_cdf(v);
    case Activation::quick_gelu:
      return v / (1 + expf(-kQuickGelu * v));
    case Activation::tanh:
      return tanhf(v);
    case Activation::sigmoid:
      return 1 / (1 + expf(-v));
  }
  return v;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
