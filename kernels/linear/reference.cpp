// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear/reference.h"

#include "kernels/core/activate.h"
#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"

namespace lockstep {
namespace {

// Rows of a tensor [N, ...]: a sample's numbers, or those of one of its tokens.
struct RowsOf {
  const View& v;
  int64_t tokens, width;
  RowsOf(const View& view, const View& y)
      : v(view),
        tokens(y.shape().rank() == 3 ? y.dim(1) : 1),
        width(y.shape().rank() == 3 ? view.dim(2) : view.shape().elements_from(1)) {}
  int64_t count() const { return v.dim(0) * tokens; }
  float& operator()(int64_t row, int64_t i) const {
    return v.as<float>()[v.spec.offset(row / tokens, row % tokens * width + i)];
  }
};

double weight(const View& w, int64_t m, int64_t k) { return double{w.as<float>()[m * w.dim(1) + k]}; }

}  // namespace

void linear_reference(const LinearParams& p, const KernelArgs& args, int threads) {
  const View &w = args.in[1], &y_view = args.out[0];
  const RowsOf x(args.in[0], y_view), y(y_view, y_view);
  const float* b = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
  parallel_for(y.count() * y.width, threads, [&](int64_t nm) {
    const int64_t n = nm / y.width, m = nm % y.width;
    double sum = b ? double{b[m]} : 0;
    for (int64_t k = 0; k < x.width; ++k) sum += double{x(n, k)} * weight(w, m, k);
    y(n, m) = static_cast<float>(activate(p.activation, sum));
  });
  zero_padding_lanes(y_view);
}

void linear_input_grad_reference(const LinearParams&, const KernelArgs& args, int threads) {
  const View &dy_view = args.in[0], &w = args.in[1];
  const RowsOf dy(dy_view, dy_view), dx(args.out[0], dy_view);
  parallel_for(dx.count() * dx.width, threads, [&](int64_t nk) {
    const int64_t n = nk / dx.width, k = nk % dx.width;
    double sum = 0;
    for (int64_t m = 0; m < dy.width; ++m) sum += double{dy(n, m)} * weight(w, m, k);
    dx(n, k) = static_cast<float>(sum);
  });
  zero_padding_lanes(args.out[0]);
}

void linear_weight_grad_reference(const LinearParams&, const KernelArgs& args, int threads) {
  const View &dy_view = args.in[1], &dw = args.out[0];
  const RowsOf x(args.in[0], dy_view), dy(dy_view, dy_view);
  parallel_for(dw.dim(0), threads, [&](int64_t m) {
    for (int64_t k = 0; k < dw.dim(1); ++k) {
      double sum = 0;
      for (int64_t n = 0; n < x.count(); ++n) sum += double{x(n, k)} * double{dy(n, m)};
      dw.as<float>()[m * dw.dim(1) + k] = static_cast<float>(sum);
    }
    if (args.out.size() < 2) return;
    double sum = 0;
    for (int64_t n = 0; n < dy.count(); ++n) sum += double{dy(n, m)};
    args.out[1].as<float>()[m] = static_cast<float>(sum);
  });
}

}  // namespace lockstep
