// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/program.h"

#include "kernels/core/step_state.h"
#include "runtime/graph/passes.h"
#include "runtime/graph/ports.h"

namespace lockstep {

PartialGraph build_forward(const ForwardFunction& forward, const GraphSpec& spec, bool training) {
  PartialGraph g;
  GraphBuilder b(g.graph);
  ModelContext context{b, training, spec.ranks};
  context.step_state = g.values[kStepState] =
      b.input(kStepState, {DType::u8, {static_cast<int64_t>(sizeof(StepState))}, Layout::plain}, false);
  forward(context, spec.batch, g.values);
  return g;
}

PartialGraph build_laid_out(const ForwardFunction& forward, const GraphSpec& spec, bool training) {
  PartialGraph g = build_forward(forward, spec, training);
  g.graph = assign_layouts(g.graph, g.values.all(), spec.device, spec.activations);
  return g;
}

Graph build_program(const Program& program, const GraphSpec& spec) {
  PartialGraph g = build_laid_out(program.forward, spec, false);
  if (spec.use_ema)
    for (ValueId v : g.graph.values_in(Storage::parameter)) g.graph.value(v).storage = Storage::ema;
  GraphBuilder b(g.graph);
  program.outputs(b, g.values);
  return std::move(g.graph);
}

void add_output(GraphBuilder& b, ValueId value, const char* name) {
  const ValueId plain = b.reorder(value, Layout::plain);
  b.graph().value(plain).storage = Storage::output;
  b.graph().value(plain).name = name;
}

}  // namespace lockstep
