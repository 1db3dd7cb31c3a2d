// SPDX-License-Identifier: Apache-2.0
// From a job to what its ranks will run: shared by `fit`, `plan` and `check`.
#pragma once

#include "launch/job/job.h"
#include "runtime/data/dataset.h"
#include "runtime/graph/plan.h"
#include "runtime/training/trainer.h"

namespace lockstep {

// Everything but what differs between ways to start: run folder, resuming, stop signals.
TrainerOptions trainer_options(const Job& job, const KernelChoice& kernels);
// `auto` resolved: a GPU where this machine has one, and NCCL between them where it is to be had.
Device device_of(const Job& job);
bool uses_nccl(const Job& job);
// Why `auto` is mpi between this machine's GPUs; "" where it isn't.
std::string why_not_nccl(const Job& job);
// What gradients travel between the job's ranks as.
DType gradient_dtype(const Job& job);
// Kernel choice for a rank that shares its host with `local_size` ranks.
KernelChoice kernel_choice(const Job& job, int local_size);

struct ParameterCount {
  int64_t all = 0, trained = 0;
  // "1000 parameters", or how many of them are trained where some are not.
  std::string text() const {
    return fmt::format("{} parameters{}", all,
                       trained < all ? fmt::format(", {} of them trained", trained) : "");
  }
};

struct JobPlan {
  DatasetShape data;
  int64_t training_samples = 0;  // after validation_fraction
  int64_t steps_per_epoch = 0, total_steps = 0;
  int64_t nominal_batch = 0;  // largest part of a (micro-)batch on any rank
  ParameterTable table;
  OptimizerParams optimizer;
  std::vector<Plan> training;  // every variant that rank 0 runs; the last one ends a full step
  KernelTable kernels;
  MemoryReport memory;     // of rank 0, the rank with the largest share
  int64_t data_bytes = 0;  // decoded images and batches in flight
  ParameterCount parameters;
};

// Reads data headers only. time_kernels: as `fit` does (cached); else the first candidate that accepts.
JobPlan plan_job(const Job& job, bool time_kernels);

// The shapes alone, without kernels or memory: what `check` needs. Throws Error(Exit::config) at the layer
// that does not fit, no_input (66) or data (65) for the data.
struct CheckedJob {
  DatasetShape data;
  ParameterCount parameters;
  int64_t steps_per_epoch = 0, total_steps = 0;
  MemoryReport memory;                // of a rank; without activations
  std::vector<std::string> warnings;  // what runs, but looks like a mistake
  ParameterTable table;
};
CheckedJob check_job(const Job& job);

}  // namespace lockstep
