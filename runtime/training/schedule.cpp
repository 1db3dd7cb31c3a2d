// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/schedule.h"

#include <algorithm>

#include "kernels/core/sizes.h"

namespace lockstep {

Schedule::Schedule(const TrainingConfig& c, int64_t samples, int ranks)
    : samples_(samples),
      batch_(c.global_batch_size),
      micro_batches_(lockstep::micro_batches(c, ranks)),
      ranks_(ranks) {
  LOCKSTEP_ASSERT(!c.shards || *c.shards % ranks == 0, "{} ranks cannot share the shards", ranks);
  if (c.gradient_accumulation > batch_)
    throw Error(Exit::config, "E_JOB_BATCH",
                fmt::format("gradient_accumulation {} is more than global_batch_size {}",
                            c.gradient_accumulation, batch_));
  steps_per_epoch_ = c.drop_last ? samples / batch_ : (samples + batch_ - 1) / batch_;
  if (steps_per_epoch_ == 0)
    throw Error(
        Exit::config, "E_JOB_BATCH",
        fmt::format("drop_last with global_batch_size {} leaves no step: there are {} training samples",
                    batch_, samples));
  total_steps_ = c.steps ? *c.steps : checked_product("the number of steps", {*c.epochs, steps_per_epoch_});
}

int64_t Schedule::global_samples(int64_t step) const { return std::min(batch_, samples_ - begin(step)); }

Slice Schedule::part(int64_t step, int64_t micro, int rank) const {
  return slice_of(global_samples(step), ranks_ * micro_batches_, rank * micro_batches_ + micro);
}

int64_t Schedule::micro_batches_with_samples(int64_t step) const {
  // Rank 0 has the largest parts, the first of them first.
  return std::min(micro_batches_, global_samples(step));
}

int64_t Schedule::smallest_micro_batch(int64_t step) const {
  const int64_t last = micro_batches_with_samples(step) - 1;
  int64_t samples = 0;
  for (int rank = 0; rank < ranks_; ++rank) samples += part(step, last, rank).size();
  return samples;
}

int64_t Schedule::nominal_part() const { return part(0, 0, 0).size(); }

std::set<int64_t> Schedule::part_sizes(int64_t micro, int rank) const {
  std::set<int64_t> sizes;
  for (int64_t step : {int64_t{0}, steps_per_epoch_ - 1}) sizes.insert(part(step, micro, rank).size());
  return sizes;
}

}  // namespace lockstep
