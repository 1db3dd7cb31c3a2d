// SPDX-License-Identifier: Apache-2.0
// How a group norm sees its tensor, and what it keeps between its passes.
#pragma once

#include "kernels/core/tensor.h"
#include "kernels/group_norm/group_norm.h"
#include "kernels/simd/moments.h"
#include "kernels/simd/tile.h"

namespace lockstep {

// Sums over the samples of a unit and H*W, one a channel: of dy and of dy * xhat.
struct GroupNormSums {
  double dy = 0, dy_xhat = 0;
};

struct GroupNormGeometry {
  int64_t n, c, hw, groups;
  double eps;
  bool silu;
  Layout layout;

  GroupNormGeometry(const GroupNormParams& p, const TensorSpec& x)
      : n(x.shape[0]),
        c(x.shape[1]),
        hw(x.shape.elements_from(2)),
        groups(p.groups),
        eps(double{p.eps}),
        silu(p.activation == Activation::silu),
        layout(x.layout) {}

  int64_t per_group() const { return c / groups; }
  // A unit is a sample, or a block of 16 in the lanes layout.
  int64_t units() const { return layout == Layout::lanes ? (n + kLanes - 1) / kLanes : n; }
  int64_t used(int64_t unit) const { return std::min<int64_t>(kLanes, n - unit * kLanes); }
  int64_t unit_elements() const { return c * hw * (layout == Layout::lanes ? kLanes : 1); }
  // Channels last, a sample's groups interleave, so that a task is a whole sample; else a group.
  bool whole_units() const { return layout == Layout::nhwc; }
  int64_t tasks() const { return units() * (whole_units() ? 1 : groups); }
  int64_t task_elements() const {
    return std::max<int64_t>(1, unit_elements() / (whole_units() ? 1 : groups));
  }

  // Workspace, channels last: a channel's moments (or sums) and up to four coefficients.
  static constexpr int64_t kScratch = sizeof(Moments) + 4 * sizeof(float);
  int64_t scratch_bytes() const { return layout == Layout::nhwc ? n * c * kScratch : 0; }
  int64_t sums_bytes() const { return units() * c * static_cast<int64_t>(sizeof(GroupNormSums)); }
};

}  // namespace lockstep
