// SPDX-License-Identifier: Apache-2.0
// How the fast kernels see images.
#pragma once

#include <algorithm>

#include "kernels/core/tensor.h"
#include "kernels/resample/resample.h"

namespace lockstep::resample {

// `planes` images of h x w pixels, each of `v` numbers side by side: a channel of a sample (plain), a sample
// (nhwc), a channel of 16 samples (lanes). `small` is the one before upsampling.
struct Geometry {
  int64_t planes, h, w, v, scale_h, scale_w;
  Geometry(const UpsampleNearest2dParams& p, const TensorSpec& small)
      : h(small.shape[2]), w(small.shape[3]), scale_h(p.scale_h), scale_w(p.scale_w) {
    v = small.layout == Layout::lanes ? kLanes : small.layout == Layout::nhwc ? small.shape[1] : 1;
    planes = small.stored_elements() / std::max<int64_t>(1, h * w * v);
  }
  int64_t small_row() const { return w * v; }
  int64_t large_row() const { return w * v * scale_w; }
};

}  // namespace lockstep::resample
