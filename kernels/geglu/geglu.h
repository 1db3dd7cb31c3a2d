// SPDX-License-Identifier: Apache-2.0
// A linear unit gated by GELU (Shazeer: arXiv 2002.05202), as diffusers' GEGLU has it behind its product.
//
// Op              inputs     outputs
//   geglu         x          y       y[.., c] = x[.., c] gelu(x[.., C + c]): value, then gate
//   geglu_grad    x, dy      dx
// x, dx [N, ..., 2 C]; y, dy [N, ..., C]. gelu: the exact, erf one. The fast kernels are plain.
#pragma once
