// SPDX-License-Identifier: Apache-2.0
// Activations that a producer (conv2d, linear) can apply to its output before storing it.
#pragma once

#include <cstdint>

namespace lockstep {

enum class Activation : uint8_t { none, relu, silu, gelu, tanh, sigmoid };  // gelu: the exact, erf one
const char* name(Activation);

}  // namespace lockstep
