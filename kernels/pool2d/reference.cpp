// SPDX-License-Identifier: Apache-2.0
// The plainest loops, for every layout: what the other kernels are tested against.
#include <cmath>
#include <limits>

#include "kernels/core/padding.h"
#include "kernels/pool2d/kernels.h"
#include "kernels/pool2d/window.h"

namespace lockstep::pool2d {
namespace {

// f(n, c, p, q, rows, columns) for every window of every image.
template <class F>
void for_each_window(const Pool2dParams& p, const Shape& x, F f) {
  const Axis h = rows(p, x), w = columns(p, x);
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t c = 0; c < x[1]; ++c)
      for (int64_t i = 0; i < h.out; ++i)
        for (int64_t j = 0; j < w.out; ++j) f(n, c, i, j, h.window(i), w.window(j));
}

void max_forward(const Pool2dParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0], &index = args.out[1];
  for_each_window(
      p, x.shape(), [&](int64_t n, int64_t c, int64_t i, int64_t j, const Window& h, const Window& w) {
        float best = -std::numeric_limits<float>::infinity();
        int64_t at = -1;
        for (int64_t r = h.r0; r < h.r1; ++r)
          for (int64_t s = w.r0; s < w.r1; ++s) {
            const float v =
                x.as<float>()[x.spec.offset(n, c, h.start + r * p.dilation_h, w.start + s * p.dilation_w)];
            if (at < 0 || v > best || (std::isnan(v) && !std::isnan(best))) best = v, at = r * p.kernel_w + s;
          }
        if (p.relu() && best <= 0) best = 0, at = Pool2dParams::kNoMaximum;
        y.as<float>()[y.spec.offset(n, c, i, j)] = best;
        index.as<uint8_t>()[index.spec.offset(n, c, i, j)] = static_cast<uint8_t>(std::max<int64_t>(at, 0));
      });
  zero_padding_lanes(y);
  zero_padding_lanes(index);
}

void clear(const View& v) { std::memset(v.data, 0, static_cast<size_t>(v.spec.bytes())); }

void max_backward(const Pool2dParams& p, const KernelArgs& args) {
  const View &dy = args.in[0], &index = args.in[1], &dx = args.out[0];
  clear(dx);
  for_each_window(
      p, dx.shape(), [&](int64_t n, int64_t c, int64_t i, int64_t j, const Window& h, const Window& w) {
        const int64_t at = index.as<uint8_t>()[index.spec.offset(n, c, i, j)];
        const int64_t r = at / p.kernel_w, s = at % p.kernel_w;
        if (r < h.r0 || r >= h.r1 || s < w.r0 || s >= w.r1)
          return;  // a window wholly in the padding, or without a maximum
        dx.as<float>()[dx.spec.offset(n, c, h.start + r * p.dilation_h, w.start + s * p.dilation_w)] +=
            dy.as<float>()[dy.spec.offset(n, c, i, j)];
      });
}

void avg_forward(const Pool2dParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  for_each_window(p, x.shape(),
                  [&](int64_t n, int64_t c, int64_t i, int64_t j, const Window& h, const Window& w) {
                    double sum = 0;
                    for (int64_t r = h.r0; r < h.r1; ++r)
                      for (int64_t s = w.r0; s < w.r1; ++s)
                        sum += x.as<float>()[x.spec.offset(n, c, h.start + r, w.start + s)];
                    y.as<float>()[y.spec.offset(n, c, i, j)] =
                        static_cast<float>(sum / static_cast<double>(divisor(p, h, w)));
                  });
  zero_padding_lanes(y);
}

void avg_backward(const Pool2dParams& p, const KernelArgs& args) {
  const View &dy = args.in[0], &dx = args.out[0];
  clear(dx);
  for_each_window(p, dx.shape(),
                  [&](int64_t n, int64_t c, int64_t i, int64_t j, const Window& h, const Window& w) {
                    const double share =
                        dy.as<float>()[dy.spec.offset(n, c, i, j)] / static_cast<double>(divisor(p, h, w));
                    for (int64_t r = h.r0; r < h.r1; ++r)
                      for (int64_t s = w.r0; s < w.r1; ++s) {
                        float& at = dx.as<float>()[dx.spec.offset(n, c, h.start + r, w.start + s)];
                        at = static_cast<float>(at + share);
                      }
                  });
}

}  // namespace

void register_reference(Registry& r) {
  const auto add = [&](const char* op, auto f) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = true},
           .make = stateless<Pool2dParams>(f)});
  };
  add("max_pool2d", max_forward);
  add("max_pool2d_grad", max_backward);
  add("avg_pool2d", avg_forward);
  add("avg_pool2d_grad", avg_backward);
}

}  // namespace lockstep::pool2d
