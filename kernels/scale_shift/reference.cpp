// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/padding.h"
#include "kernels/scale_shift/kernels.h"
#include "kernels/scale_shift/scale_shift.h"

namespace lockstep::scale_shift {
namespace {

double at(const View& v, int64_t n, int64_t i) { return double{v.as<float>()[v.spec.offset(n, i)]}; }
void set(const View& v, int64_t n, int64_t i, double value) {
  v.as<float>()[v.spec.offset(n, i)] = static_cast<float>(value);
}

void forward(const NoParams&, const KernelArgs& args) {
  const View &x = args.in[0], &shift = args.in.back(), &y = args.out[0];
  const int64_t pixels = x.shape().elements_from(2);
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t c = 0; c < x.dim(1); ++c) {
      const double factor = has_scale(args) ? 1 + at(args.in[1], n, c) : 1;
      for (int64_t i = c * pixels; i < (c + 1) * pixels; ++i)
        set(y, n, i, at(x, n, i) * factor + at(shift, n, c));
    }
  zero_padding_lanes(y);
}

void gradient(const NoParams&, const KernelArgs& args) {
  const View& dy = args.in[0];
  const int64_t pixels = dy.shape().elements_from(2);
  for (int64_t n = 0; n < dy.dim(0); ++n)
    for (int64_t c = 0; c < dy.dim(1); ++c) {
      double sum = 0, product = 0;
      for (int64_t i = c * pixels; i < (c + 1) * pixels; ++i) {
        const double d = at(dy, n, i);  // dx may be its buffer
        sum += d;
        if (!has_scale(args)) continue;
        product += d * at(args.in[1], n, i);
        set(args.out[1], n, i, d * (1 + at(args.in[2], n, c)));
      }
      set(args.out[0], n, c, sum);
      if (has_scale(args)) set(args.out[2], n, c, product);
    }
  for (const View& v : args.out) zero_padding_lanes(v);
}

}  // namespace

void register_reference(Registry& r) {
  const auto add = [&](const char* op, auto f) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = true},
           .make = stateless<NoParams>(f)});
  };
  add("scale_shift", forward);
  add("scale_shift_grad", gradient);
}

}  // namespace lockstep::scale_shift
