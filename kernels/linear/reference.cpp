// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear/reference.h"

#include "kernels/core/activate.h"
#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"

namespace lockstep {

void linear_reference(const LinearParams& p, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &w = args.in[1], &y = args.out[0];
  const float* b = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
  parallel_for(y.dim(0) * y.dim(1), threads, [&](int64_t nm) {
    const int64_t n = nm / y.dim(1), m = nm % y.dim(1);
    double sum = b ? b[m] : 0;
    for (int64_t k = 0; k < w.dim(1); ++k)
      sum += double{x.as<float>()[x.spec.offset(n, k)]} * w.as<float>()[w.spec.offset(m, k)];
    y.as<float>()[y.spec.offset(n, m)] = static_cast<float>(activate(p.activation, sum));
  });
  zero_padding_lanes(y);
}

void linear_input_grad_reference(const LinearParams&, const KernelArgs& args, int threads) {
  const View &dy = args.in[0], &w = args.in[1], &dx = args.out[0];
  const int64_t k_count = w.dim(1);
  parallel_for(dx.dim(0) * k_count, threads, [&](int64_t nk) {
    const int64_t n = nk / k_count, k = nk % k_count;
    double sum = 0;
    for (int64_t m = 0; m < w.dim(0); ++m)
      sum += double{dy.as<float>()[dy.spec.offset(n, m)]} * w.as<float>()[w.spec.offset(m, k)];
    dx.as<float>()[dx.spec.offset(n, k)] = static_cast<float>(sum);
  });
  zero_padding_lanes(dx);
}

void linear_weight_grad_reference(const LinearParams&, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &dy = args.in[1], &dw = args.out[0];
  parallel_for(dw.dim(0), threads, [&](int64_t m) {
    for (int64_t k = 0; k < dw.dim(1); ++k) {
      double sum = 0;
      for (int64_t n = 0; n < x.dim(0); ++n)
        sum += double{x.as<float>()[x.spec.offset(n, k)]} * dy.as<float>()[dy.spec.offset(n, m)];
      dw.as<float>()[dw.spec.offset(m, k)] = static_cast<float>(sum);
    }
    if (args.out.size() < 2) return;
    double sum = 0;
    for (int64_t n = 0; n < dy.dim(0); ++n) sum += dy.as<float>()[dy.spec.offset(n, m)];
    args.out[1].as<float>()[m] = static_cast<float>(sum);
  });
}

}  // namespace lockstep
