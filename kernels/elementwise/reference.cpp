// SPDX-License-Identifier: Apache-2.0
// One element at a time, in double throughout.
#include <array>
#include <cmath>
#include <numbers>

#include "kernels/core/activation.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/elementwise/kernels.h"

namespace lockstep::elementwise {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_cdf(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }
double normal_pdf(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }

double apply(Elt op, double a, double b, double imm) {
  switch (op) {
    case Elt::copy:
      return a;
    case Elt::relu:
      return a < 0 ? 0 : a;
    case Elt::silu:
      return a * sigmoid(a);
    case Elt::gelu:
      return a * normal_cdf(a);
    case Elt::quick_gelu:
      return a * sigmoid(kQuickGelu * a);
    case Elt::tanh:
      return std::tanh(a);
    case Elt::sigmoid:
      return sigmoid(a);
    case Elt::add:
      return a + b;
    case Elt::sub:
      return a - b;
    case Elt::mul:
      return a * b;
    case Elt::scale:
      return a * imm;
    case Elt::add_imm:
      return a + imm;
    case Elt::relu_grad:
      return a > 0 ? b : 0;
    case Elt::silu_grad:
      return b * sigmoid(a) * (1 + a * (1 - sigmoid(a)));
    case Elt::gelu_grad:
      return b * (normal_cdf(a) + a * normal_pdf(a));
    case Elt::quick_gelu_grad: {
      const double z = kQuickGelu * a;
      return b * sigmoid(z) * (1 + z * (1 - sigmoid(z)));
    }
    case Elt::tanh_grad:
      return b * (1 - a * a);
    case Elt::sigmoid_grad:
      return b * a * (1 - a);
  }
  return 0;
}

void elementwise_reference(const ElementwiseParams& p, const KernelArgs& args) {
  std::array<double, ElementwiseParams::kMaxRegisters> reg{};
  const int64_t n = args.in[0].spec.stored_elements();
  for (int64_t i = 0; i < n; ++i) {
    size_t r = 0;
    for (const View& x : args.in) reg[r++] = x.as<float>()[i];
    for (const EltInstruction& c : p.code) {
      reg[r] = apply(c.op, reg[static_cast<size_t>(c.a)], reg[static_cast<size_t>(c.b)], c.imm);
      ++r;
    }
    for (size_t o = 0; o < p.outputs.size(); ++o)
      args.out[o].as<float>()[i] = static_cast<float>(reg[static_cast<size_t>(p.outputs[o])]);
  }
}

}  // namespace

void register_reference(Registry& r) {
  r.add({.op = "elementwise",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& request) -> std::unique_ptr<Kernel> {
           check(request);
           return stateless<ElementwiseParams>(elementwise_reference)(request);
         }});
}

}  // namespace lockstep::elementwise
