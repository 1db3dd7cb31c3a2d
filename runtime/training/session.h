// SPDX-License-Identifier: Apache-2.0
// A model ready to run on this rank: its flat arrays, its kernel table, its executor, and the plans made so
// far.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "runtime/graph/executor.h"
#include "runtime/training/config.h"
#include "runtime/training/step_graph.h"

namespace lockstep {

struct SessionOptions {
  std::shared_ptr<const Objective> objective;  // what is trained and evaluated; null: only programs run
  std::vector<Program> programs = {};          // whose parameters the session has beside the objective's
  TrainingConfig config;
  KernelChoice kernels;
  // What kernels.device is here; null: the host's memory. Both outlive the session.
  DeviceRuntime* device = nullptr;
  DeviceCollectives* collectives = nullptr;
  KernelTable pinned;    // from a checkpoint; empty: choose
  bool retune = false;   // choose anew where a pinned kernel isn't to be had here, instead of stopping
  bool training = true;  // false: no gradients or optimizer state are allocated
  // Called with what the model's parameters will be, before memory is taken for them.
  std::function<void(const ParameterTable&)> expect_parameters = [](const ParameterTable&) {};
};

class Session {
 public:
  // Collective over `comm`, which carries the gradients; control and batch-norm statistics get their own.
  Session(SessionOptions options, Communicator& comm);

  ModelState& model() { return *model_; }
  const ModelState& model() const { return *model_; }
  Executor& executor() { return *executor_; }
  Communicator& comm() { return comm_; }
  // For agreement and metrics; not used while a plan runs.
  Communicator& control() { return *control_; }
  const KernelTable& kernel_table() const { return table_; }
  const SessionOptions& options() const { return options_; }

  struct Compiled {
    std::shared_ptr<const Plan> plan;
    Executor::Bound* bound = nullptr;
  };
  // Made at first use, which is collective where kernels must still be chosen (prepare() does that
  // beforehand).
  Compiled& training(int64_t batch, int64_t micro_batch);
  // Programs are told apart by their names.
  Compiled& program(const Program& program, int64_t batch);
  // Chooses the kernels at the nominal batch, the largest that any rank has; of training for every variant.
  // Collective.
  void prepare_training(int64_t nominal_batch);
  void prepare(const Program& program, int64_t nominal_batch);
  const Program& evaluation() const { return evaluation_; }

  MemoryReport memory() const;               // of the plans made so far
  bool retuned() const { return retuned_; }  // whether a pinned kernel had to be replaced

 private:
  GraphSpec spec(int64_t batch) const;
  void drop_lacking_kernels(KernelTable& table, const Graph& graph);
  std::shared_ptr<const Plan> compile_plan(Graph graph, bool choose, const Recompute& recompute = {});
  Recompute recompute() const;
  Compiled& bind(Compiled& slot, std::shared_ptr<const Plan> plan);

  SessionOptions options_;
  Program evaluation_;
  std::unique_ptr<DeviceRuntime> host_runtime_;
  Communicator& comm_;
  std::unique_ptr<Communicator> statistics_, control_;
  KernelTable table_;
  std::unique_ptr<ModelState> model_;
  std::unique_ptr<Executor> executor_;
  int64_t arena_bytes_ = 0;
  bool retuned_ = false;
  std::map<std::pair<int64_t, TrainingGraphOptions>, Compiled> training_;
  std::map<std::pair<std::string, int64_t>, Compiled> programs_;
  std::set<std::pair<std::string, int64_t>> prepared_;  // at nominal batches
};

}  // namespace lockstep
