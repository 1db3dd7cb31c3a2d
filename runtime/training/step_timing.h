// SPDX-License-Identifier: Apache-2.0
// What the ops of a training step take on this machine, by running it: on made-up images, so that no data set
// is needed, and with a learning rate of 0, so that the model stays as it was initialised.
#pragma once

#include "runtime/training/scaling.h"
#include "runtime/training/session.h"

namespace lockstep {

struct StepTiming {
  std::vector<StepEvent> events;  // of all micro-batches; ops with the median of their times
  double step_seconds = 0;        // median
  int64_t steps = 0;              // how many were timed
};

// Rank 0 of `ranks` ranks, with `batch` samples in each micro-batch. `copies` of it run at once, in lock
// step, each on its share of this process's cores and with memory of its own, as ranks of one host do; times
// are the first one's. Takes some seconds, of large models as long as seven steps take. The device is the
// CPU.
StepTiming time_training_step(const SessionOptions& options, int64_t batch, int ranks, int copies);

}  // namespace lockstep
