// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/conv2d/gemm.h"

namespace lockstep {

// Whether make_pointwise() is the faster way: with fewer rows of x panels have many empty columns, with more the filters are
// the smaller side. Measured on Zen 3: with 64 to 1,024 rows 1.03 to 1.46 times as fast, with 2,048 0.9.
inline bool is_pointwise(int64_t rows) { return rows >= 2 * kPanel && rows <= 1024; }

// make_gemm()'s product, forward, where each pixel of y takes one of x (w [O, C]), with the roles exchanged: x is packed in
// panels, and the filters, which are rows already, are read once. Packed weights would cost memory too: 52 MB of a layer of
// Stable Diffusion 1.5. Bits are those of the other way.
std::unique_ptr<Kernel> make_pointwise(const GemmProblem&);

}  // namespace lockstep
