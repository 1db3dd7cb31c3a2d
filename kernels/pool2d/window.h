// SPDX-License-Identifier: Apache-2.0
// Which image rows (or columns) a pooling window covers.
#pragma once

#include <algorithm>

#include "kernels/pool2d/pool2d.h"

namespace lockstep::pool2d {

// Positions r in [r0, r1) of the window lie inside the image, at start + r * dilation. Empty (r0 >= r1)
// only for a dilated window wider than the image.
struct Window {
  int64_t start = 0;
  int64_t r0 = 0, r1 = 0;
  int64_t padded = 0;  // undilated extent inside the padded image: what count_include_pad counts
};

// One axis of a pooling: size of the image, and its part of the parameters.
struct Axis {
  int64_t size, out, kernel, stride, pad, dilation;
  bool adaptive;

  Window window(int64_t o) const {
    if (adaptive) {
      const int64_t start = o * size / out, extent = ((o + 1) * size + out - 1) / out - start;
      return {start, 0, extent, extent};
    }
    const int64_t start = o * stride - pad;
    const int64_t r0 = start < 0 ? (-start + dilation - 1) / dilation : 0;
    const int64_t r1 = std::min(kernel, start >= size ? 0 : (size - start + dilation - 1) / dilation);
    return {start, r0, r1, std::min(start + kernel, size + pad) - start};
  }
};

inline Axis rows(const Pool2dParams& p, const Shape& x) {
  return {x[2], p.out_h(x[2]), p.kernel_h, p.stride_h, p.pad_h, p.dilation_h, p.adaptive};
}
inline Axis columns(const Pool2dParams& p, const Shape& x) {
  return {x[3], p.out_w(x[3]), p.kernel_w, p.stride_w, p.pad_w, p.dilation_w, p.adaptive};
}

// What the sum over a window is divided by.
inline int64_t divisor(const Pool2dParams& p, const Window& h, const Window& w) {
  return p.count_include_pad && !p.adaptive ? h.padded * w.padded : (h.r1 - h.r0) * (w.r1 - w.r0);
}

}  // namespace lockstep::pool2d
