// SPDX-License-Identifier: Apache-2.0
// Elementwise arithmetic: a short program of instructions over registers, so that one op is both
// `relu` and any fused chain. Interpreted per cache-sized tile; no run-time compiler.
//
// Op             inputs                    outputs
//   elementwise  x0, x1, ... (>= 1)        y0, y1, ... (>= 1)
// All tensors have the same dtype (f32, or bf16 where the kernel takes it), stored size and layout; any
// layout (it works on stored elements, padding lanes included). Register i is input i; instruction j writes
// register inputs + j. An output may be the same buffer as an input (in place).
//
// *_grad instructions take (y or x, dy):
//   relu_grad(y, dy)    = y > 0 ? dy : 0
//   tanh_grad(y, dy)    = dy * (1 - y*y)
//   sigmoid_grad(y, dy) = dy * y * (1 - y)
//   silu_grad(x, dy)    = dy * s * (1 + x * (1 - s)), s = sigmoid(x)
//   gelu_grad(x, dy)    = dy * (Phi(x) + x * phi(x))       the exact (erf) GELU
//   quick_gelu_grad(x, dy) = dy * s * (1 + z * (1 - s)), z = 1.702 x, s = sigmoid(z): of x * s, CLIP's GELU
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/tensor.h"

namespace lockstep {

enum class Elt : uint8_t {
  copy,  // a
  relu,  // NaN stays NaN
  silu,
  gelu,
  quick_gelu,
  tanh,
  sigmoid,
  add,  // a + b
  sub,
  mul,
  scale,            // a * imm
  add_imm,          // a + imm
  relu_grad,        // (y, dy)
  silu_grad,        // (x, dy)
  gelu_grad,        // (x, dy)
  quick_gelu_grad,  // (x, dy)
  tanh_grad,        // (y, dy)
  sigmoid_grad,
};
const char* name(Elt);
int operand_count(Elt);  // 1 or 2

struct EltInstruction {
  Elt op;
  int a = 0, b = 0;  // registers; b unused where operand_count is 1
  float imm = 0;
};

struct ElementwiseParams {
  static constexpr int kMaxRegisters = 24;
  int inputs = 1;
  std::vector<EltInstruction> code;
  std::vector<int> outputs;  // registers stored, one per output

  std::string text() const {
    std::string s = fmt::format("{}:", inputs);
    int r = inputs;
    for (const auto& i : code) {
      s += fmt::format(" r{}={}(r{}", r++, name(i.op), i.a);
      if (operand_count(i.op) == 2) s += fmt::format(",r{}", i.b);
      if (i.op == Elt::scale || i.op == Elt::add_imm) s += fmt::format(",{}", i.imm);
      s += ")";
    }
    s += " ->";
    for (int o : outputs) s += fmt::format(" r{}", o);
    return s;
  }
};

}  // namespace lockstep
