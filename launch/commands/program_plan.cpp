// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/program_plan.h"

#include "models/model.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/cpu_topology.h"

namespace lockstep {

std::vector<ProgramPlan> plan_programs(const ModelDescription& model, int64_t samples, Device device) {
  const DType activations = activation_dtype(model.config);
  const KernelChoice how{.device = device,
                         .threads = threads_per_rank(0, 1),
                         .processor = processor_name(),
                         .cache_file = default_kernel_cache(),
                         .activations = activations,
                         .independent = true};
  const auto self = make_self_communicator();
  const auto choose = [&](KernelTable& table, const Graph& graph) {
    choose_kernels(table, graph, how, *self);
  };
  KernelTable kernels;
  std::vector<ProgramPlan> plans;
  for (const Program& program : make_programs(model.model, model.input, model.config)) {
    Graph graph = build_program(program, {samples, 1, device, activations});
    int64_t parameters = 0;
    for (ValueId v : graph.values_in(Storage::parameter)) parameters += graph.value(v).spec.shape.elements();
    plans.push_back({program.name, compile(std::move(graph), kernels, how, choose), parameters});
  }
  return plans;
}

}  // namespace lockstep
