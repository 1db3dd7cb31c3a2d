// SPDX-License-Identifier: Apache-2.0
// Plain loops in double: what every other batch norm kernel is tested against.
#include <algorithm>
#include <cmath>

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/core/kernel.h"
#include "kernels/core/padding.h"

namespace lockstep {
namespace {

struct Dims {
  int64_t n, c, hw;
  explicit Dims(const View& x) : n(x.dim(0)), c(x.dim(1)), hw(x.shape().elements_from(2)) {}
};

// f(i) for the offset i of every element of channel c.
template <class F>
void for_channel(const View& x, int64_t c, F f) {
  const Dims d(x);
  for (int64_t n = 0; n < d.n; ++n)
    for (int64_t i = 0; i < d.hw; ++i) f(x.spec.offset(n, c * d.hw + i));
}

void stats(const BatchNormParams&, const KernelArgs& args) {
  const View& x = args.in[0];
  const Dims d(x);
  const float* px = x.as<float>();
  float* part = args.out[0].as<float>();
  for (int64_t c = 0; c < d.c; ++c) {
    const double count = static_cast<double>(d.n * d.hw);
    double sum = 0, m2 = 0;
    for_channel(x, c, [&](int64_t i) { sum += double{px[i]}; });
    const double mean = count > 0 ? sum / count : 0;
    for_channel(x, c, [&](int64_t i) { m2 += (double{px[i]} - mean) * (double{px[i]} - mean); });
    part[c] = static_cast<float>(count);
    part[d.c + c] = static_cast<float>(mean);
    part[2 * d.c + c] = static_cast<float>(m2);
  }
}

// Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
void merge(const BatchNormParams& p, const KernelArgs& args) {
  const View& parts = args.in[0];
  const int64_t ranks = parts.dim(0), channels = parts.dim(2);
  const float* in = parts.as<float>();
  float* out = args.out[0].as<float>();
  for (int64_t c = 0; c < channels; ++c) {
    double count = 0, mean = 0, m2 = 0;
    for (int64_t r = 0; r < ranks; ++r) {
      const float* part = in + r * 3 * channels + c;
      const double n = double{part[0]};
      if (n == 0) continue;
      const double delta = double{part[channels]} - mean, total = count + n;
      mean += delta * (n / total);
      m2 += double{part[2 * channels]} + delta * delta * (count * (n / total));
      count = total;
    }
    const double variance = count > 0 ? m2 / count : 0;
    out[c] = static_cast<float>(count);
    out[channels + c] = static_cast<float>(mean);
    out[2 * channels + c] = static_cast<float>(variance);
    out[3 * channels + c] = static_cast<float>(1 / std::sqrt(variance + double{p.eps}));
  }
}

void running(const BatchNormParams& p, const KernelArgs& args) {
  const float* s = args.in[0].as<float>();
  const int64_t channels = args.in[0].dim(1);
  const float *mean = args.in[1].as<float>(), *var = args.in[2].as<float>();
  float *out_mean = args.out[0].as<float>(), *out_var = args.out[1].as<float>();
  const double keep = 1 - double{p.momentum};
  for (int64_t c = 0; c < channels; ++c) {
    const double count = double{s[c]}, biased = double{s[2 * channels + c]};
    out_mean[c] = mean[c], out_var[c] = var[c];
    if (count > 0)
      out_mean[c] = static_cast<float>(keep * double{mean[c]} + double{p.momentum} * double{s[channels + c]});
    if (count > 1)
      out_var[c] =
          static_cast<float>(keep * double{var[c]} + double{p.momentum} * (biased * (count / (count - 1))));
  }
}

// What follows the norm: r[i] added where there is one, then the activation. A NaN stays one.
struct Follows {
  const float* r;
  bool relu;
  Follows(const BatchNormParams& p, const KernelArgs& args, size_t residual)
      : r(args.in.size() > residual ? args.in[residual].as<float>() : nullptr),
        relu(p.activation == Activation::relu) {}
  float operator()(double z, int64_t i) const {
    if (r) z += double{r[i]};
    return static_cast<float>(relu && z < 0 ? 0 : z);
  }
};

void apply(const BatchNormParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  const Dims d(x);
  const Follows follows(p, args, 4);
  const float *px = x.as<float>(), *s = args.in[1].as<float>();
  const float *gamma = args.in[2].as<float>(), *beta = args.in[3].as<float>();
  float* py = y.as<float>();
  for (int64_t c = 0; c < d.c; ++c) {
    const double mean = double{s[d.c + c]}, invstd = double{s[3 * d.c + c]};
    for_channel(x, c, [&](int64_t i) {
      py[i] = follows(double{gamma[c]} * ((double{px[i]} - mean) * invstd) + double{beta[c]}, i);
    });
  }
  zero_padding_lanes(y);
}

void eval(const BatchNormParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  const Dims d(x);
  const Follows follows(p, args, 5);
  const float *px = x.as<float>(), *mean = args.in[1].as<float>(), *var = args.in[2].as<float>();
  const float *gamma = args.in[3].as<float>(), *beta = args.in[4].as<float>();
  float* py = y.as<float>();
  for (int64_t c = 0; c < d.c; ++c) {
    const double invstd = 1 / std::sqrt(double{var[c]} + double{p.eps});
    for_channel(x, c, [&](int64_t i) {
      py[i] = follows(double{gamma[c]} * ((double{px[i]} - double{mean[c]}) * invstd) + double{beta[c]}, i);
    });
  }
  zero_padding_lanes(y);
}

// dz of dy, given xhat: through relu, which gamma and beta tell.
struct Back {
  const float *gamma = nullptr, *beta = nullptr;
  double operator()(double dy, double xhat, int64_t c) const {
    return !gamma || double{gamma[c]} * xhat + double{beta[c]} > 0 ? dy : 0;
  }
};

void grad_sums(const BatchNormParams& p, const KernelArgs& args) {
  const View& x = args.in[0];
  const Dims d(x);
  Back back;
  if (p.activation == Activation::relu) back = {args.in[3].as<float>(), args.in[4].as<float>()};
  const float *px = x.as<float>(), *dy = args.in[1].as<float>(), *s = args.in[2].as<float>();
  float* sums = args.out[0].as<float>();
  for (int64_t c = 0; c < d.c; ++c) {
    const double mean = double{s[d.c + c]}, invstd = double{s[3 * d.c + c]};
    double sum = 0, sum_xhat = 0;
    for_channel(x, c, [&](int64_t i) {
      const double xhat = (double{px[i]} - mean) * invstd, dz = back(double{dy[i]}, xhat, c);
      sum += dz;
      sum_xhat += dz * xhat;
    });
    sums[c] = static_cast<float>(sum);
    sums[d.c + c] = static_cast<float>(sum_xhat);
  }
}

void input_grad(const BatchNormParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &dx = args.out[0];
  const Dims d(x);
  const float *px = x.as<float>(), *dy = args.in[1].as<float>(), *s = args.in[2].as<float>();
  const float *gamma = args.in[3].as<float>(), *sums = args.in[4].as<float>();
  Back back;
  if (p.activation == Activation::relu) back = {gamma, args.in[5].as<float>()};
  float* pdx = dx.as<float>();
  for (int64_t c = 0; c < d.c; ++c) {
    const double count = double{s[c]}, mean = double{s[d.c + c]}, invstd = double{s[3 * d.c + c]};
    const double mean_dy = double{sums[c]} / count, mean_dy_xhat = double{sums[d.c + c]} / count;
    for_channel(x, c, [&](int64_t i) {
      const double xhat = (double{px[i]} - mean) * invstd;
      const double dz = back(double{dy[i]}, xhat, c);
      pdx[i] = static_cast<float>(double{gamma[c]} * invstd * (dz - mean_dy - xhat * mean_dy_xhat));
    });
  }
  zero_padding_lanes(dx);
}

void affine_grad(const BatchNormParams&, const KernelArgs& args) {
  const int64_t channels = args.in[0].dim(1);
  const float* sums = args.in[0].as<float>();
  std::copy_n(sums + channels, channels, args.out[0].as<float>());
  std::copy_n(sums, channels, args.out[1].as<float>());
}

}  // namespace

void add_batch_norm_reference(Registry& r) {
  const auto add = [&](const char* op, auto f, BitExact bits) {
    r.add({op, "reference", Device::cpu, LayoutClass::any, DType::f32, bits, stateless<BatchNormParams>(f)});
  };
  // Sums run over this rank's samples in one go, so a cut of the batch shows in their last bits.
  const BitExact sums{.threads = true, .shard = false}, elementwise{.threads = true, .shard = true};
  add("batch_norm_stats", stats, sums);
  add("batch_norm_merge", merge, sums);
  add("batch_norm_running", running, elementwise);
  add("batch_norm_apply", apply, elementwise);
  add("batch_norm_eval", eval, elementwise);
  add("batch_norm_grad_sums", grad_sums, sums);
  add("batch_norm_input_grad", input_grad, elementwise);
  add("batch_norm_affine_grad", affine_grad, elementwise);
}

}  // namespace lockstep
