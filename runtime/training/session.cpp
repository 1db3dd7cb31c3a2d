// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/session.h"

#include <set>
#include <sstream>

#include "runtime/comm/together.h"
#include "runtime/comm/whereabouts.h"

namespace lockstep {

Session::Session(SessionOptions options, Communicator& comm)
    : options_(std::move(options)),
      evaluation_(options_.objective ? evaluation_program(options_.objective) : Program()),
      comm_(comm),
      table_(options_.pinned) {
  if (!options_.device) {
    host_runtime_ = make_host_runtime(options_.kernels.device);
    options_.device = host_runtime_.get();
  }
  options_.kernels.runtime = options_.device;
  options_.kernels.activations = activation_dtype(options_.config);
  // Where the host carries sums it takes part in every step (executor.h).
  options_.kernels.recorded = comm.size() == 1 || options_.collectives;
  statistics_ = comm.duplicate("statistics");
  control_ = comm.duplicate("control");
  ParameterTable parameters =
      parameter_table(options_.objective.get(), options_.programs, spec(1), options_.config);
  options_.expect_parameters(parameters);
  const ModelArrays arrays =
      options_.training ? model_arrays(options_.config, parameters, comm_.size()) : ModelArrays{false};
  model_ = std::make_unique<ModelState>(std::move(parameters), arrays, comm_);
  executor_ = std::make_unique<Executor>(*model_, comm_, *statistics_, options_.kernels, *options_.device,
                                         options_.collectives);
}

GraphSpec Session::spec(int64_t batch) const {
  return {batch, comm_.size(), options_.kernels.device, options_.kernels.activations,
          options_.training && options_.config.ema.decay.has_value()};
}

// Pinned kernels that any rank's build or machine lacks.
void Session::drop_lacking_kernels(KernelTable& table, const Graph& graph) {
  std::string mine;
  for (const auto& signature : drop_unavailable(table, graph, options_.kernels)) mine += signature + "\n";
  std::set<std::string> lacking;
  for (const auto& text : control_->gather_text(mine)) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) lacking.insert(line);
  }
  if (lacking.empty()) return;
  if (!options_.retune) {
    std::string list;
    for (const auto& signature : lacking)
      list += (list.empty() ? "" : "; ") + options_.pinned.at(signature) + " for " + signature;
    throw AgreedError(Error(Exit::config, "E_KERNEL_PINNED",
                            "this build or machine lacks the checkpoint's kernels: " + list)
                          .hint("--retune chooses others; the run then goes on with other last bits"));
  }
  for (const auto& signature : lacking) table.erase(signature);
  retuned_ = true;
}

std::shared_ptr<const Plan> Session::compile_plan(Graph graph, bool choose, const Recompute& recompute) {
  const auto choose_for = [&](KernelTable& t, const Graph& g) {
    if (!choose) return;
    const OwnWork own("choosing kernels");
    if (!options_.pinned.empty()) drop_lacking_kernels(t, g);
    choose_kernels(t, g, options_.kernels, *control_);
  };
  auto plan =
      std::make_shared<Plan>(compile(std::move(graph), table_, options_.kernels, choose_for, recompute));
  arena_bytes_ = std::max(arena_bytes_, plan->arena_bytes);
  return plan;
}

Session::Compiled& Session::bind(Compiled& slot, std::shared_ptr<const Plan> plan) {
  slot.plan = std::move(plan);
  slot.bound = &executor_->bind(slot.plan);
  return slot;
}

Session::Compiled& Session::training(int64_t batch, int64_t micro_batch) {
  const TrainingGraphOptions how = micro_batch_options(options_.config, comm_.size(), micro_batch);
  Compiled& slot = training_[{batch, how}];
  if (slot.bound) return slot;
  return bind(slot, compile_plan(
                        build_training(*options_.objective, spec(batch), model_->table, options_.config, how),
                        false, recompute()));
}

Session::Compiled& Session::program(const Program& program, int64_t batch) {
  Compiled& slot = programs_[{program.name, batch}];
  if (slot.bound) return slot;
  return bind(slot, compile_plan(build_program(program, spec(batch)), false));
}

void Session::prepare_training(int64_t nominal_batch) {
  std::set<TrainingGraphOptions> variants;
  for (int64_t m = 0; m < micro_batches(options_.config, comm_.size()); ++m) {
    const TrainingGraphOptions how = micro_batch_options(options_.config, comm_.size(), m);
    if (!variants.insert(how).second) continue;
    compile_plan(
        build_training(*options_.objective, spec(nominal_batch), model_->table, options_.config, how), true,
        recompute());
  }
}

void Session::prepare(const Program& program, int64_t nominal_batch) {
  if (!prepared_.insert({program.name, nominal_batch}).second) return;
  compile_plan(build_program(program, spec(nominal_batch)), true);
}

Recompute Session::recompute() const {
  MemoryReport flat = memory();
  flat.arena = 0;
  return recompute_of(options_.config, flat.total());
}

MemoryReport Session::memory() const {
  MemoryReport r;
  r.parameters = model_->parameters.bytes();
  r.gradients = model_->gradients.bytes();
  for (const auto& s : model_->partial_sums) r.gradients += s.bytes();
  if (options_.collectives) r.gradients += options_.collectives->staging_bytes(model_->gradients.bytes());
  for (const auto& s : model_->state) r.state += s.bytes();
  r.ema = model_->ema.bytes();
  r.half = model_->half.bytes();
  r.buffers = model_->buffers.bytes();
  r.arena = arena_bytes_;
  return r;
}

}  // namespace lockstep
