// SPDX-License-Identifier: Apache-2.0
// What the group norm kernels of a GPU share.
#pragma once

#include "kernels/gpu/channel_sums.h"
#include "kernels/group_norm/group_norm.h"

namespace lockstep::LOCKSTEP_DEVICE {

// Everything about a group norm on one tensor.
template <class T>
struct GroupGeometry {
  int64_t n, c, hw, groups;
  float eps;
  bool silu, columns, wide;  // wide: 16 bytes hold numbers of one channel (plain), or of one pixel

  GroupGeometry(const GroupNormParams& p, const TensorSpec& x)
      : n(x.shape[0]),
        c(x.shape[1]),
        hw(x.shape.elements_from(2)),
        groups(p.groups),
        eps(p.eps),
        silu(p.activation == Activation::silu),
        columns(x.layout == Layout::nhwc),
        wide((columns ? c : hw) % kVector<T> == 0) {}
  int width() const { return wide ? kVector<T> : 1; }
  int64_t per_group() const { return c / groups; }
  int64_t group_numbers() const { return per_group() * hw; }
  unsigned tile() const { return wide ? kColumns<kVector<T>> : kColumns<1>; }
  Columns matrices() const { return {unsigned(n), unsigned(hw), unsigned(c)}; }
  // Of stats [N, 2 * groups].
  Statistics statistics(const float* stats) const {
    return {stats, stats + groups, unsigned(2 * groups), unsigned(per_group())};
  }
};

// Mean and 1/sqrt(variance + eps) of `count` numbers, of whose deviations from `center` these are the sums,
// and those of their squares.
__device__ __forceinline__ void finish_moments(float center, float sum1, float sum2, float count, float eps,
                                               float& mean, float& invstd) {
  const float off = sum1 / count;
  mean = center + off;
  invstd = 1.0f / sqrtf((sum2 - off * sum1) / count + eps);
}

// What follows the norm: nothing, or a SiLU.
struct Follows {
  bool silu;
  __device__ __forceinline__ float operator()(float z) const { return silu ? z / (1 + expf(-z)) : z; }
};

// The gradient of a channel's gamma * xhat + beta, from that of what follows it.
struct BackFrom {
  float gamma, beta;
  bool silu;
  __device__ __forceinline__ float operator()(float dy, float xhat) const {
    if (!silu) return dy;
    const float z = fmaf(xhat, gamma, beta), s = 1 / (1 + expf(-z));
    return dy * s * fmaf(z, 1 - s, 1.0f);
  }
};
struct BackFromChannels {
  using Channel = BackFrom;
  const float *gamma, *beta;
  bool silu;
  __device__ __forceinline__ BackFrom of(unsigned c) const { return {gamma[c], beta[c], silu}; }
  // Of kWidth channels from c on.
  template <int kWidth>
  __device__ __forceinline__ void load(BackFrom (&channels)[kWidth], unsigned c) const {
    float scale[kWidth], shift[kWidth] = {};
    load_row(scale, gamma + c);
    if (silu) load_row(shift, beta + c);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) channels[k] = {scale[k], shift[k], silu};
  }
};

// dgamma and dbeta of parts [count][C][2].
inline void add_affine_grads(const KernelArgs& args, const float* parts, int64_t count, int64_t channels) {
  sum_parts(parts, args.out[2].as<float>(), args.out[1].as<float>(), count, channels, args.stream);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
