// SPDX-License-Identifier: Apache-2.0
// Tokens, for kernels of rows: in the plain layout [N, T, K] is N*T rows of K.
#pragma once

#include <functional>

#include "kernels/core/kernel.h"

namespace lockstep {

using MakeLinear = std::function<std::unique_ptr<Kernel>(const KernelRequest&)>;

// `make`, which sees rows, for tokens too. op: which of linear.h's.
MakeLinear for_tokens_too(std::string_view op, MakeLinear make);
// Whether y or dy is [N, T, M].
bool of_tokens(std::string_view op, const KernelRequest&);

}  // namespace lockstep
