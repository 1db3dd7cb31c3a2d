// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/core/tensor.h"

namespace lockstep {

// db[c] = the sum of dy over all pixels, dy f32 or bf16 in nhwc: `rows` (of all samples) of so many pixels
// each. A row's pixels are added in order, then the rows: bits don't depend on the thread count.
void bias_grad_nhwc(const View& dy, int64_t rows, int64_t pixels, int64_t channels, float* db, int threads);

}  // namespace lockstep
