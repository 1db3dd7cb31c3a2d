// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/elementwise.h"

#include "kernels/elementwise/kernels.h"

namespace lockstep {

const char* name(Elt e) {
  switch (e) {
    case Elt::copy:
      return "copy";
    case Elt::relu:
      return "relu";
    case Elt::silu:
      return "silu";
    case Elt::gelu:
      return "gelu";
    case Elt::quick_gelu:
      return "quick_gelu";
    case Elt::tanh:
      return "tanh";
    case Elt::sigmoid:
      return "sigmoid";
    case Elt::add:
      return "add";
    case Elt::sub:
      return "sub";
    case Elt::mul:
      return "mul";
    case Elt::scale:
      return "scale";
    case Elt::add_imm:
      return "add_imm";
    case Elt::relu_grad:
      return "relu_grad";
    case Elt::silu_grad:
      return "silu_grad";
    case Elt::gelu_grad:
      return "gelu_grad";
    case Elt::quick_gelu_grad:
      return "quick_gelu_grad";
    case Elt::tanh_grad:
      return "tanh_grad";
    case Elt::sigmoid_grad:
      return "sigmoid_grad";
  }
  return "?";
}

int operand_count(Elt e) {
  switch (e) {
    case Elt::copy:
    case Elt::relu:
    case Elt::silu:
    case Elt::gelu:
    case Elt::quick_gelu:
    case Elt::tanh:
    case Elt::sigmoid:
    case Elt::scale:
    case Elt::add_imm:
      return 1;
    case Elt::add:
    case Elt::sub:
    case Elt::mul:
    case Elt::relu_grad:
    case Elt::silu_grad:
    case Elt::gelu_grad:
    case Elt::quick_gelu_grad:
    case Elt::tanh_grad:
    case Elt::sigmoid_grad:
      return 2;
  }
  return 0;
}

void elementwise::check(const KernelRequest& request) {
  const auto& p = request.params.as<ElementwiseParams>();
  const auto registers = static_cast<size_t>(p.inputs) + p.code.size();
  LOCKSTEP_ASSERT(p.inputs >= 1 && !p.outputs.empty() && registers <= ElementwiseParams::kMaxRegisters, "{}",
                  p.text());
  LOCKSTEP_ASSERT(
      request.in.size() == static_cast<size_t>(p.inputs) && request.out.size() == p.outputs.size(), "{}",
      p.text());
  int written = p.inputs;
  for (const EltInstruction& i : p.code) {
    LOCKSTEP_ASSERT(i.a >= 0 && i.a < written && i.b >= 0 && i.b < written, "{}", p.text());
    ++written;
  }
  for (int o : p.outputs) LOCKSTEP_ASSERT(o >= 0 && o < written, "{}", p.text());
  const TensorSpec& first = request.in[0];
  for (auto specs : {request.in, request.out})
    for (const TensorSpec& s : specs)
      LOCKSTEP_ASSERT(s.dtype == first.dtype && s.layout == first.layout &&
                          s.stored_elements() == first.stored_elements(),
                      "{} beside {}", s.text(), first.text());
}

}  // namespace lockstep
