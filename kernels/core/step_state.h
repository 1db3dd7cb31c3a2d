// SPDX-License-Identifier: Apache-2.0
// What changes from step to step while the plan stays: read by kernels from memory (as a u8 tensor
// of sizeof(StepState)), so that a captured CUDA graph can be replayed.
#pragma once

#include <cstdint>

namespace lockstep {

struct StepState {
  uint64_t seed = 0;           // the job's seed
  int64_t step = 0;            // optimizer steps done before this one; the first has 0
  int64_t first_sample = 0;    // position in the global batch of this rank's first sample
  int64_t global_samples = 0;  // samples of the whole global batch: the mean's divisor
  float lr = 0;                // this step's learning rate, schedule applied
  float ema_gain = 1;          // 1 - decay of the parameters' moving average in this step
  int32_t training = 1;
};

}  // namespace lockstep
