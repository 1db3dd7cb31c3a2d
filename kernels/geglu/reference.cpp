// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numbers>

#include "kernels/core/padding.h"
#include "kernels/geglu/geglu.h"
#include "kernels/geglu/kernels.h"

namespace lockstep::geglu {
namespace {

float& element(const View& v, int64_t n, int64_t i) { return v.as<float>()[v.spec.offset(n, i)]; }
double cdf(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }
double density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }

// f(sample, where in y, where x has its value, where its gate)
template <class F>
void for_each(const View& y, F f) {
  const int64_t c = columns(y);
  for (int64_t n = 0; n < y.dim(0); ++n)
    for (int64_t i = 0; i < y.shape().elements_from(1); ++i) {
      const int64_t value = i / c * 2 * c + i % c;
      f(n, i, value, value + c);
    }
}

void forward(const NoParams&, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  for_each(y, [&](int64_t n, int64_t i, int64_t value, int64_t gate) {
    const double g = double{element(x, n, gate)};
    element(y, n, i) = static_cast<float>(double{element(x, n, value)} * g * cdf(g));
  });
  zero_padding_lanes(y);
}

void gradient(const NoParams&, const KernelArgs& args) {
  const View &x = args.in[0], &dy = args.in[1], &dx = args.out[0];
  for_each(dy, [&](int64_t n, int64_t i, int64_t value, int64_t gate) {
    const double v = double{element(x, n, value)}, g = double{element(x, n, gate)},
                 d = double{element(dy, n, i)};
    element(dx, n, value) = static_cast<float>(d * g * cdf(g));
    element(dx, n, gate) = static_cast<float>(d * v * (cdf(g) + g * density(g)));
  });
  zero_padding_lanes(dx);
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
  add("geglu", forward);
  add("geglu_grad", gradient);
}

}  // namespace lockstep::geglu
