// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include "kernels/core/padding.h"
#include "kernels/layer_norm/kernels.h"
#include "kernels/layer_norm/layer_norm.h"

namespace lockstep::layer_norm {
namespace {

// Row `row` of sample n, whose rows have `width` numbers.
double at(const View& v, int64_t n, int64_t row, int64_t width, int64_t i) {
  return double{v.as<float>()[v.spec.offset(n, row * width + i)]};
}
void set(const View& v, int64_t n, int64_t row, int64_t width, int64_t i, double value) {
  v.as<float>()[v.spec.offset(n, row * width + i)] = static_cast<float>(value);
}

// f(sample, row)
template <class F>
void for_each_row(const View& x, int64_t width, F f) {
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t row = 0; row < x.shape().elements_from(1) / width; ++row) f(n, row);
}

void forward(const LayerNormParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0], &stats = args.out[1];
  const float *gamma = args.in[1].as<float>(), *beta = args.in[2].as<float>();
  const int64_t c = args.in[1].dim(0);
  for_each_row(x, c, [&](int64_t n, int64_t row) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < c; ++i) mean += at(x, n, row, c, i) / static_cast<double>(c);
    for (int64_t i = 0; i < c; ++i) {
      const double d = at(x, n, row, c, i) - mean;
      variance += d * d / static_cast<double>(c);
    }
    const double invstd = 1 / std::sqrt(variance + double{p.eps});
    set(stats, n, row, 2, 0, mean), set(stats, n, row, 2, 1, invstd);
    for (int64_t i = 0; i < c; ++i)
      set(y, n, row, c, i, (at(x, n, row, c, i) - mean) * invstd * double{gamma[i]} + double{beta[i]});
  });
  zero_padding_lanes(y), zero_padding_lanes(stats);
}

// dx = invstd (gamma dy - mean(gamma dy) - xhat mean(gamma dy xhat)), the means over the row.
void gradient(const LayerNormParams&, const KernelArgs& args) {
  const View &x = args.in[0], &dy = args.in[1], &stats = args.in[3], &dx = args.out[0];
  const float* gamma = args.in[2].as<float>();
  const int64_t c = args.in[2].dim(0);
  std::vector<double> dgamma(static_cast<size_t>(c)), dbeta(static_cast<size_t>(c));
  for_each_row(x, c, [&](int64_t n, int64_t row) {
    const double mean = at(stats, n, row, 2, 0), invstd = at(stats, n, row, 2, 1);
    double sum = 0, product = 0;
    for (int64_t i = 0; i < c; ++i) {
      const double xhat = (at(x, n, row, c, i) - mean) * invstd, d = at(dy, n, row, c, i);
      dgamma[static_cast<size_t>(i)] += d * xhat, dbeta[static_cast<size_t>(i)] += d;
      sum += d * double{gamma[i]}, product += d * double{gamma[i]} * xhat;
    }
    for (int64_t i = 0; i < c; ++i) {
      const double xhat = (at(x, n, row, c, i) - mean) * invstd, d = at(dy, n, row, c, i) * double{gamma[i]};
      set(dx, n, row, c, i, invstd * (d - (sum + xhat * product) / static_cast<double>(c)));
    }
  });
  for (int64_t i = 0; i < c; ++i) {
    args.out[1].as<float>()[i] = static_cast<float>(dgamma[static_cast<size_t>(i)]);
    args.out[2].as<float>()[i] = static_cast<float>(dbeta[static_cast<size_t>(i)]);
  }
  zero_padding_lanes(dx);
}

}  // namespace

void register_reference(Registry& r) {
  const auto add = [&](const char* op, auto f, bool shard) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = shard},
           .make = stateless<LayerNormParams>(f)});
  };
  add("layer_norm", forward, true);
  add("layer_norm_grad", gradient, false);
}

}  // namespace lockstep::layer_norm
