// SPDX-License-Identifier: Apache-2.0
// Activations that a producer (conv2d, linear) can apply to its output before storing it.
#pragma once

#include <cstdint>

namespace lockstep {

// gelu: the exact, erf one; quick_gelu: x * sigmoid(1.702 x), CLIP's.
enum class Activation : uint8_t { none, relu, silu, gelu, quick_gelu, tanh, sigmoid };
inline constexpr float kQuickGelu = 1.702f;
const char* name(Activation);

}  // namespace lockstep
