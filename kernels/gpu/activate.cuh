// SPDX-License-Identifier: Apache-2.0
// Activations at the end of a convolution or matrix product.
#pragma once

#include "kernels/core/activation.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

__device__ inline float activate(Activation a, float v) {
  switch (a) {
    case Activation::none:
      return v;
    case Activation::relu:
      return v < 0 ? 0 : v;  // NaN stays NaN
    case Activation::silu:
      return v / (1 + expf(-v));
    case Activation::gelu:
      return 0.5f * v * erfcf(-0.70710678f * v);
    case Activation::tanh:
      return tanhf(v);
    case Activation::sigmoid:
      return 1 / (1 + expf(-v));
  }
  return v;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
