// SPDX-License-Identifier: Apache-2.0
// Builds the graphs of a job from a model: the training step, evaluation, prediction.
#pragma once

#include <compare>
#include <functional>

#include "kernels/core/kernel.h"
#include "kernels/optimizer/optimizer.h"
#include "runtime/data/dataset.h"
#include "runtime/graph/graph.h"
#include "runtime/graph/parameter_table.h"
#include "runtime/graph/plan.h"
#include "runtime/training/config.h"
#include "runtime/training/model_state.h"

namespace lockstep {

// What a model function needs beside its input.
struct ModelContext {
  GraphBuilder& builder;
  bool training = true;
  int ranks = 1;                  // batch norm's statistics meet over so many
  int64_t classes = 0;            // the data's, and the hidden one where labels are hidden
  ValueId step_state = kNoValue;  // dropout reads it
  uint32_t dropouts = 0;          // dropout layers so far
  // Diffusion only: [N] each. A hidden class is number `classes`.
  ValueId timesteps = kNoValue, labels = kNoValue;
};
// Adds the model's nodes; returns the scores [N, classes], or for diffusion an image shaped as its input.
using ModelFunction = std::function<ValueId(ModelContext&, ValueId image)>;

struct InputShape {
  int64_t channels = 0, height = 0, width = 0, classes = 0;
  std::vector<float> mean, std;  // one per channel
  AugmentConfig augment;         // while training
  Extent uncropped;              // of training images, where augment.random_crop makes height x width of them

  Extent training_images() const { return uncropped.given() ? uncropped : Extent{height, width}; }
};

struct StepGraphSpec {
  ModelFunction model;
  InputShape input;
  int64_t batch = 0;  // this rank's samples
  int ranks = 1;
  Device device = Device::cpu;                    // decides the layouts
  std::optional<DiffusionConfig> diffusion = {};  // the objective; none: classification
  DType activations = DType::f32;
  bool use_ema = false;  // evaluation and prediction read the parameters' moving average
};

// Forward only, batch 1, as the model was written: for the parameter table, and to check shapes.
Graph build_forward(const StepGraphSpec& spec, bool training);

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
Graph build_training(const StepGraphSpec& spec, const ParameterTable& table, const TrainingConfig& config,
                     const TrainingGraphOptions& options);
// Output "metrics" of this rank's samples: [loss sum, correct count], the loss without label smoothing.
// Diffusion: [weighted loss sum, ...], and "prediction", "target" (plain) and "timesteps" beside it.
Graph build_evaluation(const StepGraphSpec& spec, const TrainingConfig& config);
// Outputs "log_probabilities" [N, classes] and, of a model with a linear layer, "features" [N, K], what its
// last one reads; plain. Diffusion: from noisy images f32 [N, C, H, W], timesteps f32 [N] and labels the
// output "prediction", plain.
Graph build_prediction(const StepGraphSpec& spec);

// What `recompute` asks for, where so many bytes of flat arrays lie beside the arena.
Recompute recompute_of(const TrainingConfig& config, int64_t flat_bytes);

// What a model of this job is in memory while it is trained.
ModelArrays model_arrays(const TrainingConfig& config, const ParameterTable& table, int ranks);

// The flat optimizer's parameters: segments in flat order from the table, lr scale, decay and freezing from
// the job's groups. Throws Error(Exit::config, "E_PARAM_GROUP") for a group that matches no tensor.
OptimizerParams optimizer_params(const TrainingConfig& config, const ParameterTable& table);

}  // namespace lockstep
