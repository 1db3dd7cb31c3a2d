// SPDX-License-Identifier: Apache-2.0
// Which samples belong to which step, micro-batch and rank.
#pragma once

#include <set>

#include "runtime/data/sample_order.h"
#include "runtime/training/config.h"

namespace lockstep {

class Schedule {
 public:
  // Throws Error(Exit::config) where an epoch would have no step, or a micro-batch no sample.
  Schedule(const TrainingConfig& config, int64_t samples, int ranks);

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  int64_t total_steps() const { return total_steps_; }
  // Parts of a step that a rank computes, one after the other.
  int64_t micro_batches() const { return micro_batches_; }
  int64_t epoch(int64_t step) const { return step / steps_per_epoch_; }
  // Samples in the global batch of a step: the last of an epoch may be short.
  int64_t global_samples(int64_t step) const;
  // Position in the epoch of the step's first sample.
  int64_t begin(int64_t step) const { return step % steps_per_epoch_ * batch_; }
  // A rank's micro-batch, as positions within the step's global batch: those of a rank lie side by side.
  Slice part(int64_t step, int64_t micro, int rank) const;
  // Micro-batches of a step in which any rank has a sample: the first so many.
  int64_t micro_batches_with_samples(int64_t step) const;
  // Samples over all ranks of the smallest of those.
  int64_t smallest_micro_batch(int64_t step) const;
  // The largest part of any rank, and all sizes that occur for one.
  int64_t nominal_part() const;
  std::set<int64_t> part_sizes(int64_t micro, int rank) const;

 private:
  int64_t samples_, batch_, micro_batches_, ranks_;
  int64_t steps_per_epoch_ = 0, total_steps_ = 0;
};

}  // namespace lockstep
