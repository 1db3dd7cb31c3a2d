// SPDX-License-Identifier: Apache-2.0
// Plain loops in double: what every other group norm kernel is tested against.
#include <algorithm>
#include <cmath>

#include "kernels/core/activate.h"
#include "kernels/core/kernel.h"
#include "kernels/core/padding.h"
#include "kernels/group_norm/group_norm.h"

namespace lockstep {
namespace {

void group_norm_reference(const GroupNormParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0], &stats = args.out[1];
  const float *px = x.as<float>(), *gamma = args.in[1].as<float>(), *beta = args.in[2].as<float>();
  float *py = y.as<float>(), *ps = stats.as<float>();
  const int64_t hw = x.shape().elements_from(2), per_group = x.dim(1) / p.groups * hw;
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t g = 0; g < p.groups; ++g) {
      const int64_t begin = g * per_group, end = begin + per_group;
      double sum = 0, m2 = 0;
      for (int64_t i = begin; i < end; ++i) sum += double{px[x.spec.offset(n, i)]};
      const double mean = sum / static_cast<double>(per_group);
      for (int64_t i = begin; i < end; ++i) {
        const double delta = double{px[x.spec.offset(n, i)]} - mean;
        m2 += delta * delta;
      }
      const double invstd = 1 / std::sqrt(m2 / static_cast<double>(per_group) + double{p.eps});
      ps[stats.spec.offset(n, g)] = static_cast<float>(mean);
      ps[stats.spec.offset(n, p.groups + g)] = static_cast<float>(invstd);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = x.spec.offset(n, i), c = i / hw;
        const double z = double{gamma[c]} * ((double{px[at]} - mean) * invstd) + double{beta[c]};
        py[at] = static_cast<float>(activate(p.activation, z));
      }
    }
  zero_padding_lanes(y);
  zero_padding_lanes(stats);
}

void group_norm_grad_reference(const GroupNormParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &dy = args.in[1], &stats = args.in[4], &dx = args.out[0];
  const float *px = x.as<float>(), *gamma = args.in[2].as<float>(), *beta = args.in[3].as<float>();
  const float* ps = stats.as<float>();
  float *pdx = dx.as<float>(), *dgamma = args.out[1].as<float>(), *dbeta = args.out[2].as<float>();
  const int64_t batch = x.dim(0), hw = x.shape().elements_from(2), per_group = x.dim(1) / p.groups * hw;
  const auto xhat = [&](int64_t n, int64_t i) {
    const int64_t g = i / per_group;
    return (double{px[x.spec.offset(n, i)]} - double{ps[stats.spec.offset(n, g)]}) *
           double{ps[stats.spec.offset(n, p.groups + g)]};
  };
  // The gradient of what goes into the activation.
  const auto dz = [&](int64_t n, int64_t i) {
    const double d = double{dy.as<float>()[dy.spec.offset(n, i)]};
    if (p.activation == Activation::none) return d;
    const double z = double{gamma[i / hw]} * xhat(n, i) + double{beta[i / hw]}, s = 1 / (1 + std::exp(-z));
    return d * s * (1 + z * (1 - s));
  };
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t g = 0; g < p.groups; ++g) {
      const int64_t begin = g * per_group, end = begin + per_group;
      double mean = 0, mean_xhat = 0;  // of gamma * dy and of gamma * dy * xhat
      for (int64_t i = begin; i < end; ++i) {
        const double d = double{gamma[i / hw]} * dz(n, i);
        mean += d / static_cast<double>(per_group);
        mean_xhat += d * xhat(n, i) / static_cast<double>(per_group);
      }
      const double invstd = double{ps[stats.spec.offset(n, p.groups + g)]};
      for (int64_t i = begin; i < end; ++i) {
        const double d = double{gamma[i / hw]} * dz(n, i);
        pdx[x.spec.offset(n, i)] = static_cast<float>(invstd * (d - mean - xhat(n, i) * mean_xhat));
      }
    }
  zero_padding_lanes(dx);
  for (int64_t c = 0; c < x.dim(1); ++c) {
    double sum = 0, sum_xhat = 0;
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t i = c * hw; i < (c + 1) * hw; ++i) {
        sum += dz(n, i);
        sum_xhat += dz(n, i) * xhat(n, i);
      }
    dgamma[c] = static_cast<float>(sum_xhat);
    dbeta[c] = static_cast<float>(sum);
  }
}

}  // namespace

void add_group_norm_reference(Registry& r) {
  r.add({"group_norm",
         "reference",
         Device::cpu,
         LayoutClass::any,
         DType::f32,
         {.threads = true, .shard = true},
         stateless<GroupNormParams>(group_norm_reference)});
  // dgamma and dbeta run over this rank's samples in one go, so a cut of the batch shows in their last bits.
  r.add({"group_norm_grad",
         "reference",
         Device::cpu,
         LayoutClass::any,
         DType::f32,
         {.threads = true, .shard = false},
         stateless<GroupNormParams>(group_norm_grad_reference)});
}

}  // namespace lockstep
