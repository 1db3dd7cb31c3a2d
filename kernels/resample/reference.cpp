// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/padding.h"
#include "kernels/resample/kernels.h"
#include "kernels/resample/resample.h"

namespace lockstep::resample {
namespace {

void upsample_reference(const UpsampleNearest2dParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  for (int64_t n = 0; n < y.dim(0); ++n)
    for (int64_t c = 0; c < y.dim(1); ++c)
      for (int64_t h = 0; h < y.dim(2); ++h)
        for (int64_t w = 0; w < y.dim(3); ++w)
          y.as<float>()[y.spec.offset(n, c, h, w)] =
              x.as<float>()[x.spec.offset(n, c, h * x.dim(2) / p.height, w * x.dim(3) / p.width)];
  zero_padding_lanes(y);
}

void upsample_grad_reference(const UpsampleNearest2dParams& p, const KernelArgs& args) {
  const View &dy = args.in[0], &dx = args.out[0];
  for (int64_t n = 0; n < dx.dim(0); ++n)
    for (int64_t c = 0; c < dx.dim(1); ++c)
      for (int64_t h = 0; h < dx.dim(2); ++h)
        for (int64_t w = 0; w < dx.dim(3); ++w) {
          double sum = 0;
          for (int64_t r = 0; r < p.height; ++r)
            for (int64_t s = 0; s < p.width; ++s)
              if (r * dx.dim(2) / p.height == h && s * dx.dim(3) / p.width == w)
                sum += double{dy.as<float>()[dy.spec.offset(n, c, r, s)]};
          dx.as<float>()[dx.spec.offset(n, c, h, w)] = static_cast<float>(sum);
        }
  zero_padding_lanes(dx);
}

}  // namespace

void register_reference(Registry& r) {
  const auto add = [&](const char* op, auto make) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = true},
           .make = make});
  };
  add("upsample_nearest2d", stateless<UpsampleNearest2dParams>(upsample_reference));
  add("upsample_nearest2d_grad", stateless<UpsampleNearest2dParams>(upsample_grad_reference));
}

}  // namespace lockstep::resample
