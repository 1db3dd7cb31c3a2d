// SPDX-License-Identifier: Apache-2.0
// Which pixels of one image each pixel of another gathers: the forward convolution and the input gradient
// alike.
//
// Along one axis, place i (of `places`) is pixel i*out_step + out_first of the image written. Its tap t (of
// `taps`) reads pixel i*step + first + t*tap_step of the image read and the kernel's row
// weight_first + t*weight_step. Pixels outside the image read count as 0.
#pragma once

#include <numeric>
#include <vector>

#include "kernels/conv2d/conv2d.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

struct GatherAxis {
  int in = 0, out = 0;  // sizes of the images
  int places = 0, out_step = 1, out_first = 0;
  int taps = 0, step = 1, first = 0, tap_step = 1, weight_first = 0, weight_step = 1;
  int kernel = 0;  // the kernel's size
};

struct Gather {
  GatherAxis h, w;
  int places() const { return h.places * w.places; }
  int taps() const { return h.taps * w.taps; }
};

namespace detail {

inline GatherAxis forward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                               int64_t dilation) {
  return {.in = static_cast<int>(in),
          .out = static_cast<int>(out),
          .places = static_cast<int>(out),
          .taps = static_cast<int>(kernel),
          .step = static_cast<int>(stride),
          .first = static_cast<int>(-pad),
          .tap_step = static_cast<int>(dilation),
          .kernel = static_cast<int>(kernel)};
}

// Input pixel a + stride*i was read through tap r by output pixel (a + stride*i + pad - r*dilation) / stride,
// where that divides: every stride / gcd(stride, dilation)-th tap.
inline std::vector<GatherAxis> input_grad_axes(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                               int64_t pad, int64_t dilation) {
  std::vector<GatherAxis> axes;
  const int64_t weight_step = stride / std::gcd(stride, dilation);
  for (int64_t a = 0; a < std::min(stride, in); ++a) {
    int64_t r = 0;
    while (r < kernel && (a + pad - r * dilation) % stride != 0) ++r;
    axes.push_back({.in = static_cast<int>(out),
                    .out = static_cast<int>(in),
                    .places = static_cast<int>((in - a + stride - 1) / stride),
                    .out_step = static_cast<int>(stride),
                    .out_first = static_cast<int>(a),
                    .taps = static_cast<int>(r < kernel ? (kernel - 1 - r) / weight_step + 1 : 0),
                    .first = static_cast<int>((a + pad - r * dilation) / stride),
                    .tap_step = static_cast<int>(-weight_step * dilation / stride),
                    .weight_first = static_cast<int>(r),
                    .weight_step = static_cast<int>(weight_step),
                    .kernel = static_cast<int>(kernel)});
  }
  return axes;
}

}  // namespace detail

// x, y, w: shapes of the forward convolution.
inline Gather forward_gather(const Conv2dParams& p, const Shape& x, const Shape& w, const Shape& y) {
  return {detail::forward_axis(x[2], y[2], w[2], p.stride_h, p.pad_top, p.dilation_h),
          detail::forward_axis(x[3], y[3], w[3], p.stride_w, p.pad_left, p.dilation_w)};
}
// One for each remainder of the pixel by the stride; together they write every pixel of dx once.
inline std::vector<Gather> input_grad_gathers(const Conv2dParams& p, const Shape& x, const Shape& w,
                                              const Shape& y) {
  std::vector<Gather> all;
  for (const auto& h : detail::input_grad_axes(x[2], y[2], w[2], p.stride_h, p.pad_top, p.dilation_h))
    for (const auto& v : detail::input_grad_axes(x[3], y[3], w[3], p.stride_w, p.pad_left, p.dilation_w))
      all.push_back({h, v});
  return all;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
