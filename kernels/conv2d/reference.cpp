// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/reference.h"

#include "kernels/core/activate.h"
#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"

namespace lockstep {

void conv2d_reference(const Conv2dParams& p, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &w = args.in[1], &y = args.out[0];
  const float* b = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
  const int64_t o_count = y.dim(1), c_per_group = w.dim(1), o_per_group = o_count / p.groups;
  parallel_for(y.dim(0) * o_count, threads, [&](int64_t no) {
    const int64_t n = no / o_count, o = no % o_count, first_c = o / o_per_group * c_per_group;
    for (int64_t q = 0; q < y.dim(2); ++q)
      for (int64_t u = 0; u < y.dim(3); ++u) {
        double sum = b ? b[o] : 0;
        for (int64_t c = 0; c < c_per_group; ++c)
          for (int64_t r = 0; r < w.dim(2); ++r)
            for (int64_t s = 0; s < w.dim(3); ++s) {
              const int64_t h = q * p.stride_h - p.pad_top + r * p.dilation_h;
              const int64_t v = u * p.stride_w - p.pad_left + s * p.dilation_w;
              if (h < 0 || h >= x.dim(2) || v < 0 || v >= x.dim(3)) continue;
              sum += double{x.as<float>()[x.spec.offset(n, first_c + c, h, v)]} *
                     w.as<float>()[w.spec.offset(o, c, r, s)];
            }
        y.as<float>()[y.spec.offset(n, o, q, u)] = static_cast<float>(activate(p.activation, sum));
      }
  });
  zero_padding_lanes(y);
}

void conv2d_input_grad_reference(const Conv2dParams& p, const KernelArgs& args, int threads) {
  const View &dy = args.in[0], &w = args.in[1], &dx = args.out[0];
  const int64_t c_count = dx.dim(1), c_per_group = w.dim(1), o_per_group = w.dim(0) / p.groups;
  parallel_for(dx.dim(0) * c_count, threads, [&](int64_t nc) {
    const int64_t n = nc / c_count, c = nc % c_count, first_o = c / c_per_group * o_per_group;
    for (int64_t h = 0; h < dx.dim(2); ++h)
      for (int64_t v = 0; v < dx.dim(3); ++v) {
        double sum = 0;
        for (int64_t o = first_o; o < first_o + o_per_group; ++o)
          for (int64_t r = 0; r < w.dim(2); ++r)
            for (int64_t s = 0; s < w.dim(3); ++s) {
              // The outputs that this input reached through tap (r, s).
              const int64_t q = h + p.pad_top - r * p.dilation_h, u = v + p.pad_left - s * p.dilation_w;
              if (q < 0 || u < 0 || q % p.stride_h != 0 || u % p.stride_w != 0) continue;
              if (q / p.stride_h >= dy.dim(2) || u / p.stride_w >= dy.dim(3)) continue;
              sum += double{dy.as<float>()[dy.spec.offset(n, o, q / p.stride_h, u / p.stride_w)]} *
                     w.as<float>()[w.spec.offset(o, c % c_per_group, r, s)];
            }
        dx.as<float>()[dx.spec.offset(n, c, h, v)] = static_cast<float>(sum);
      }
  });
  zero_padding_lanes(dx);
}

void conv2d_weight_grad_reference(const Conv2dParams& p, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &dy = args.in[1], &dw = args.out[0];
  const int64_t c_per_group = dw.dim(1), o_per_group = dw.dim(0) / p.groups;
  parallel_for(dw.dim(0), threads, [&](int64_t o) {
    const int64_t first_c = o / o_per_group * c_per_group;
    for (int64_t c = 0; c < c_per_group; ++c)
      for (int64_t r = 0; r < dw.dim(2); ++r)
        for (int64_t s = 0; s < dw.dim(3); ++s) {
          double sum = 0;
          for (int64_t n = 0; n < x.dim(0); ++n)
            for (int64_t q = 0; q < dy.dim(2); ++q)
              for (int64_t u = 0; u < dy.dim(3); ++u) {
                const int64_t h = q * p.stride_h - p.pad_top + r * p.dilation_h;
                const int64_t v = u * p.stride_w - p.pad_left + s * p.dilation_w;
                if (h < 0 || h >= x.dim(2) || v < 0 || v >= x.dim(3)) continue;
                sum += double{x.as<float>()[x.spec.offset(n, first_c + c, h, v)]} *
                       dy.as<float>()[dy.spec.offset(n, o, q, u)];
              }
          dw.as<float>()[dw.spec.offset(o, c, r, s)] = static_cast<float>(sum);
        }
    if (args.out.size() < 2) return;
    double sum = 0;
    for (int64_t n = 0; n < dy.dim(0); ++n)
      for (int64_t q = 0; q < dy.dim(2); ++q)
        for (int64_t u = 0; u < dy.dim(3); ++u) sum += dy.as<float>()[dy.spec.offset(n, o, q, u)];
    args.out[1].as<float>()[o] = static_cast<float>(sum);
  });
}

}  // namespace lockstep
