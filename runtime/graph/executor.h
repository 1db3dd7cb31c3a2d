// Runs plans on the CPU, on one model's flat arrays and one arena. Everything is allocated by bind(); run() allocates
// nothing.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "runtime/comm/communicator.h"
#include "runtime/graph/plan.h"
#include "runtime/training/model_state.h"

namespace lockstep {

struct StepInputs {
  const uint8_t* images = nullptr;
  const int32_t* labels = nullptr;
  StepState state;
};
// Names of the graph inputs that the executor fills.
inline constexpr const char* kImages = "images";
inline constexpr const char* kLabels = "labels";
inline constexpr const char* kStepState = "step_state";

class Executor {
 public:
  // `gradients` carries the buckets (its communication thread), `statistics` batch norm's sums.
  Executor(ModelState& model, Communicator& gradients, Communicator& statistics, const KernelChoice& how);
  ~Executor();

  class Bound;
  // Makes the plan's kernels and resolves its addresses. The reference stays valid as long as the executor.
  Bound& bind(std::shared_ptr<const Plan> plan);
  void run(Bound& plan, const StepInputs& inputs);
  // A value of storage `output` after a run, by name.
  const View& output(const Bound& plan, const std::string& name) const;
  // Runs the forward part again and looks at every node's results; the layer and op of the first that holds a NaN or
  // infinity ("" : none does). Leaves parameters and buffers as they are. Collective.
  std::string first_non_finite(Bound& plan, const StepInputs& inputs);

  int64_t arena_bytes() const { return arena_.bytes(); }

 private:
  void resolve(Bound& bound);
  void set_inputs(Bound& bound, const StepInputs& inputs);
  void run_node(Bound& bound, size_t node);
  void wait_all();

  ModelState& model_;
  Communicator& gradients_;
  Communicator& statistics_;
  KernelChoice how_;
  AlignedBuffer arena_;
  std::vector<std::unique_ptr<Bound>> bound_;
  std::vector<Communicator::Ticket> tickets_;
};

}  // namespace lockstep
