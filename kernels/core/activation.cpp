// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/activation.h"

namespace lockstep {

const char* name(Activation a) {
  switch (a) {
    case Activation::none:
      return "none";
    case Activation::relu:
      return "relu";
    case Activation::silu:
      return "silu";
    case Activation::gelu:
      return "gelu";
    case Activation::quick_gelu:
      return "quick_gelu";
    case Activation::tanh:
      return "tanh";
    case Activation::sigmoid:
      return "sigmoid";
  }
  return "?";
}

}  // namespace lockstep
