// SPDX-License-Identifier: Apache-2.0
// Where channels lie, in every layout: a tensor is stretches that each hold all channels, one after another.
// A stretch is a sample (plain), a pixel (nhwc) or a block of 16 samples (lanes).
#pragma once

#include "kernels/core/tensor.h"

namespace lockstep {

struct Stretches {
  int64_t count = 0, channel = 0, channels = 0;  // how many; numbers of a channel in one; channels
  explicit Stretches(const TensorSpec& s) : channel(1), channels(s.shape[1]) {
    if (s.layout != Layout::nhwc)
      channel = s.shape.elements_from(2) * (s.layout == Layout::lanes ? kLanes : 1);
    if (length() > 0) count = s.stored_elements() / length();
  }
  int64_t length() const { return channel * channels; }
};

}  // namespace lockstep
