// SPDX-License-Identifier: Apache-2.0
// Runs plans on a device, on one model's flat arrays and one arena. Everything is allocated by bind(); run()
// allocates nothing.
//
// Where the device has memory of its own, the ModelState is the host's copy: upload_model() and
// download_model() move it, and after run() the gradients' metrics and the plan's outputs are on the host. A
// plan that needs no host in between is recorded at its second run and replayed from then on. The device
// works on its own then: its next batch is copied, and its last results are read, while it computes.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/core/kernel.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/device_collectives.h"
#include "runtime/device/device_runtime.h"
#include "runtime/graph/plan.h"
#include "runtime/graph/ports.h"
#include "runtime/telemetry/trace.h"
#include "runtime/training/model_state.h"

namespace lockstep {

class Executor {
 public:
  // `gradients` carries the buckets (its communication thread), `statistics` batch norm's sums; where there
  // are `collectives`, which work on the device's memory, they carry both.
  Executor(ModelState& model, Communicator& gradients, Communicator& statistics, const KernelChoice& how,
           DeviceRuntime& device, DeviceCollectives* collectives = nullptr);
  ~Executor();

  struct Bound;
  // Makes the plan's kernels and resolves its addresses. The reference stays valid as long as the executor.
  Bound& bind(std::shared_ptr<const Plan> plan);
  // Error usage (64) where the inputs are not what the plan's ports take (match_ports).
  void run(Bound& plan, const StepInputs& inputs);
  // The same in parts. start() returns when the run is under way; send_results() sends the metrics and
  // outputs as they are after it; await_results() waits for the oldest that was sent, at most two may be.
  // Where the host's memory is the device's, start() does it all.
  void start(Bound& plan, const StepInputs& inputs);
  void send_results(Bound& plan);
  void await_results(Bound& plan);
  // Whether the next start() may come before await_results().
  bool runs_ahead() const { return !device_.shares_host_memory(); }
  // The model from the host to the device, with fresh bf16 copies of the parameters, after it was initialised
  // or loaded; and back, before it is stored.
  void upload_model();
  void download_model();
  // A value of storage `output` after a run, by name; on the host.
  const View& output(const Bound& plan, const std::string& name) const;
  // Runs the forward part again and looks at every node's results; the layer and op of the first that holds a
  // NaN or infinity ("" : none does). Leaves parameters and buffers as they are. Collective.
  std::string first_non_finite(Bound& plan, const StepInputs& inputs);

  int64_t arena_bytes() const { return arena_.bytes(); }
  // Nodes are timed from now on while it records (null: no more). Where the host's memory is the device's
  // only: elsewhere the host does not see when a node runs.
  void set_trace(Trace* trace) { trace_ = trace; }
  // What it records, by node; empty where the plan has not been traced yet.
  std::span<const Trace::Work> works(const Bound& plan) const;

 private:
  void resolve(Bound& bound);
  void set_inputs(Bound& bound, const StepInputs& inputs);
  void run_node(Bound& bound, size_t node);
  void run_nodes(Bound& bound);
  void run_nodes_traced(Bound& bound);
  void make_transfers(Bound& bound);
  int64_t metrics_bytes() const;
  void reduce_on_host(std::span<float> device, std::span<float> host);
  void start_on_device(const Node& node, std::span<float> data);
  void wait_all();

  ModelState& model_;
  Communicator& gradients_;
  Communicator& statistics_;
  KernelChoice how_;
  DeviceRuntime& device_;
  DeviceCollectives* collectives_;
  Trace* trace_ = nullptr;
  DeviceMemory arena_, parameters_, gradients_on_device_, buffers_, ema_, half_;
  std::vector<DeviceMemory> partial_sums_, state_;
  std::vector<std::unique_ptr<Bound>> bound_;
  std::vector<Communicator::Ticket> tickets_;
};

}  // namespace lockstep
