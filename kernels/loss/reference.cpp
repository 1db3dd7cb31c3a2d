// SPDX-License-Identifier: Apache-2.0
// Plain loops in double: what every other loss kernel is tested against.
#include <algorithm>
#include <cmath>

#include "kernels/core/kernel.h"
#include "kernels/core/padding.h"
#include "kernels/core/step_state.h"
#include "kernels/loss/loss.h"

namespace lockstep {
namespace {

// log sum exp of sample n, max-shifted; NaN where a value is NaN or +inf, or all are -inf.
double log_sum_exp(const View& x, int64_t n) {
  const float* p = x.as<float>();
  double most = -HUGE_VAL, sum = 0;
  for (int64_t c = 0; c < x.dim(1); ++c) most = std::max(most, double{p[x.spec.offset(n, c)]});
  for (int64_t c = 0; c < x.dim(1); ++c) sum += std::exp(double{p[x.spec.offset(n, c)]} - most);
  return most + std::log(sum);
}

void log_softmax(const NoParams&, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  for (int64_t n = 0; n < x.dim(0); ++n) {
    const double lse = log_sum_exp(x, n);
    for (int64_t c = 0; c < x.dim(1); ++c) {
      const int64_t i = x.spec.offset(n, c);
      y.as<float>()[i] = static_cast<float>(double{x.as<float>()[i]} - lse);
    }
  }
  zero_padding_lanes(y);
}

void log_softmax_grad(const NoParams&, const KernelArgs& args) {
  const View &y = args.in[0], &dx = args.out[0];
  const float *py = y.as<float>(), *dy = args.in[1].as<float>();
  for (int64_t n = 0; n < y.dim(0); ++n) {
    double sum = 0;
    for (int64_t c = 0; c < y.dim(1); ++c) sum += double{dy[y.spec.offset(n, c)]};
    for (int64_t c = 0; c < y.dim(1); ++c) {
      const int64_t i = y.spec.offset(n, c);
      dx.as<float>()[i] = static_cast<float>(double{dy[i]} - std::exp(double{py[i]}) * sum);
    }
  }
  zero_padding_lanes(dx);
}

struct Target {
  double at_label, elsewhere;
  Target(const LossParams& p, int64_t classes)
      : elsewhere(double{p.label_smoothing} / static_cast<double>(classes)) {
    at_label = 1 - double{p.label_smoothing} + elsewhere;
  }
  double of(bool label) const { return label ? at_label : elsewhere; }
};

void cross_entropy(const LossParams& p, const KernelArgs& args) {
  const View& x = args.in[0];
  const int32_t* labels = args.in[1].as<int32_t>();
  const Target target(p, x.dim(1));
  double sum = 0;
  int64_t correct = 0;
  for (int64_t n = 0; n < x.dim(0); ++n) {
    const double lse = p.from_log_probs ? 0 : log_sum_exp(x, n);
    double loss = 0, most = -HUGE_VAL;
    int64_t best = -1;
    bool nan = false;
    for (int64_t c = 0; c < x.dim(1); ++c) {
      const double v = double{x.as<float>()[x.spec.offset(n, c)]};
      const double t = target.of(c == labels[n]);
      if (t != 0) loss -= t * (v - lse);
      nan |= std::isnan(v);
      if (best < 0 || v > most) most = v, best = c;
    }
    sum += loss;
    correct += !nan && best == labels[n];
  }
  args.out[0].as<float>()[0] = static_cast<float>(sum);
  args.out[0].as<float>()[1] = static_cast<float>(correct);
}

void cross_entropy_grad(const LossParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &dx = args.out[0];
  const int32_t* labels = args.in[1].as<int32_t>();
  const double scale = 1 / static_cast<double>(args.in[2].as<StepState>()->global_samples);
  const Target target(p, x.dim(1));
  for (int64_t n = 0; n < x.dim(0); ++n) {
    const double lse = p.from_log_probs ? 0 : log_sum_exp(x, n);
    for (int64_t c = 0; c < x.dim(1); ++c) {
      const int64_t i = x.spec.offset(n, c);
      const double softmax = p.from_log_probs ? 0 : std::exp(double{x.as<float>()[i]} - lse);
      dx.as<float>()[i] = static_cast<float>((softmax - target.of(c == labels[n])) * scale);
    }
  }
  zero_padding_lanes(dx);
}

}  // namespace

void add_loss_reference(Registry& r) {
  const auto add = [&](const char* op, auto make, BitExact bits) {
    r.add({op, "reference", Device::cpu, LayoutClass::any, DType::f32, bits, make});
  };
  const BitExact per_sample{.threads = true, .shard = true};
  add("log_softmax", stateless<NoParams>(log_softmax), per_sample);
  add("log_softmax_grad", stateless<NoParams>(log_softmax_grad), per_sample);
  // The sum of losses is rounded once a rank, so a cut of the batch shows in its last bit.
  add("cross_entropy", stateless<LossParams>(cross_entropy), {.threads = true, .shard = false});
  add("cross_entropy_grad", stateless<LossParams>(cross_entropy_grad), per_sample);
}

}  // namespace lockstep
