// SPDX-License-Identifier: Apache-2.0
// How the fast kernels see images.
#pragma once

#include <algorithm>

#include "kernels/core/tensor.h"
#include "kernels/resample/resample.h"

namespace lockstep::resample {

// Which of `large` pixels in a row (or column) have the value of which of `small`.
struct Axis {
  int64_t small, large;
  int64_t source(int64_t i) const { return i * small / large; }
  int64_t first(int64_t i) const { return (i * large + small - 1) / small; }  // that has source i
};

// `planes` images, each pixel `v` numbers side by side: a channel of a sample (plain), a sample (nhwc), a channel
// of 16 samples (lanes). `small` is the one before upsampling.
struct Geometry {
  int64_t planes, v;
  Axis h, w;
  Geometry(const UpsampleNearest2dParams& p, const TensorSpec& small)
      : v(small.layout == Layout::lanes  ? kLanes
          : small.layout == Layout::nhwc ? small.shape[1]
                                         : 1),
        h{small.shape[2], p.height},
        w{small.shape[3], p.width} {
    planes = small.stored_elements() / std::max<int64_t>(1, h.small * w.small * v);
  }
  int64_t small_row() const { return w.small * v; }
  int64_t large_row() const { return w.large * v; }
};

}  // namespace lockstep::resample
