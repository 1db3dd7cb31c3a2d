// SPDX-License-Identifier: Apache-2.0
// How pooling kernels on a GPU see images.
#pragma once

#include "kernels/gpu/vectors.h"
#include "kernels/pool2d/pool2d.h"

namespace lockstep::LOCKSTEP_DEVICE {

constexpr int kPoolThreads = 256;

// A plane is an image of `v` numbers a pixel: a channel of a sample in plain (v = 1), a sample in nhwc (all
// of its channels).
struct Planes {
  int h, w, p, q;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  unsigned v;
};
inline Planes planes_of(const Pool2dParams& p, const TensorSpec& x) {
  const auto i = [](int64_t n) { return static_cast<int>(n); };
  return {i(x.shape[2]),
          i(x.shape[3]),
          i(p.out_h(x.shape[2])),
          i(p.out_w(x.shape[3])),
          i(p.kernel_h),
          i(p.kernel_w),
          i(p.stride_h),
          i(p.stride_w),
          i(p.pad_h),
          i(p.pad_w),
          i(p.dilation_h),
          i(p.dilation_w),
          static_cast<unsigned>(x.layout == Layout::nhwc ? x.shape[1] : 1)};
}

struct Place {
  unsigned plane, part;  // part: which vector of the pixel's
  int row, column;
};
// Of vector i of images with `width` columns and `height` rows.
__device__ __forceinline__ Place place(unsigned i, unsigned parts, int height, int width) {
  const unsigned pixel = i / parts, line = pixel / static_cast<unsigned>(width);
  return {line / static_cast<unsigned>(height), i % parts,
          static_cast<int>(line % static_cast<unsigned>(height)),
          static_cast<int>(pixel % static_cast<unsigned>(width))};
}

// The first and last window, of `count`, that may have position `pixel` of an axis.
__device__ __forceinline__ int first_window(int pixel, int pad, int extent, int stride) {
  const int room = pixel + pad - extent;
  return room < 0 ? 0 : room / stride + 1;
}
__device__ __forceinline__ int last_window(int pixel, int pad, int stride, int count) {
  return min((pixel + pad) / stride, count - 1);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
