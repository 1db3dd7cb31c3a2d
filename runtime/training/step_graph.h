// SPDX-License-Identifier: Apache-2.0
// Builds the graph of a training step from an objective.
#pragma once

#include <compare>

#include "kernels/core/kernel.h"
#include "kernels/optimizer/optimizer.h"
#include "runtime/graph/graph.h"
#include "runtime/graph/parameter_table.h"
#include "runtime/graph/plan.h"
#include "runtime/training/config.h"
#include "runtime/training/model_state.h"
#include "runtime/training/objective.h"

namespace lockstep {

// One micro-batch of a step. Its gradients go, with partial sums of those before, where `store` says: 0 is
// the gradients' own array, 1 and on are those beside it (Storage::partial_sum).
struct TrainingGraphOptions {
  uint64_t add = 0;  // bit i: the sum in array i is added, in the order of i
  int store = 0;
  bool finish = true;  // allreduce and optimizer: the last micro-batch of a step
  int64_t bucket_bytes = 4 << 20;

  // clang-tidy 14 takes this for a null pointer.
  auto operator<=>(const TrainingGraphOptions&) const = default;  // NOLINT(modernize-use-nullptr)
};
// Micro-batch m of a rank's. With shards their sum is a binary tree: array i holds sums of 2^i micro-batches,
// two of which make one of array i + 1, as digits carry in a binary counter. A rank's sum is then a node of
// the tree over all shards, and the communicator adds the levels above it (Communicator::start_allreduce).
TrainingGraphOptions micro_batch_options(const TrainingConfig& config, int ranks, int64_t m);
// A step whose loss is not finite changes neither parameters nor optimizer state; on device cuda, where the
// host sees it only after the next step has begun, nor does any step after it.
Graph build_training(const Objective& objective, const GraphSpec& spec, const ParameterTable& table,
                     const TrainingConfig& config, const TrainingGraphOptions& options);
// What `recompute` asks for, where so many bytes of flat arrays lie beside the arena.
Recompute recompute_of(const TrainingConfig& config, int64_t flat_bytes);

// The parameters of what is trained (null: nothing is), then those that only programs have.
ParameterTable parameter_table(const Objective* objective, const std::vector<Program>& programs,
                               const GraphSpec& spec, const TrainingConfig& config);

// What a model of this job is in memory while it is trained.
ModelArrays model_arrays(const TrainingConfig& config, const ParameterTable& table, int ranks);

// The flat optimizer's parameters: segments in flat order from the table, lr scale, decay and freezing from
// the job's groups. Throws Error(Exit::config, "E_PARAM_GROUP") for a group that matches no tensor.
OptimizerParams optimizer_params(const TrainingConfig& config, const ParameterTable& table);

}  // namespace lockstep
