// SPDX-License-Identifier: Apache-2.0
// group_norm and group_norm_grad with Highway in three layouts.
//
// Sums run in f32 over at most kTileRows rows, then in double, always in the same order; statistics in two
// passes over each such piece. A group is read from memory once where it fits the cache: it is normalised
// right after its statistics. No fma, so all instruction sets give equal bits; with SiLU those that have fma
// do. bf16 is widened as it is read and rounded once when it is written.
#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "kernels/core/kernel.h"
#include "kernels/core/parallel.h"
#include "kernels/group_norm/geometry.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/group_norm/simd.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/simd/activate-inl.h"
#include "kernels/simd/columns-inl.h"

#ifndef LOCKSTEP_GROUP_NORM_SIMD_ONCE
#define LOCKSTEP_GROUP_NORM_SIMD_ONCE
namespace lockstep {

struct GroupNormStats {
  float mean, invstd;
  GroupNormStats(const Moments& m, double eps)
      : mean(static_cast<float>(m.mean)), invstd(static_cast<float>(1 / std::sqrt(m.m2 / m.count + eps))) {}
};

// The four coefficient rows of a sample's scratch behind its `c` moments.
inline float* coefficients(std::byte* scratch, int64_t c, int row) {
  return reinterpret_cast<float*>(scratch + c * static_cast<int64_t>(sizeof(Moments))) + row * c;
}

struct GroupNormForward {
  View x, y;
  const float *gamma, *beta;
  float* stats;
  std::byte* scratch;
};

struct GroupNormBackward {
  View x, dy, dx;
  const float *gamma, *beta, *stats;
  GroupNormSums* sums;  // [units, C]
  std::byte* scratch;
};

}  // namespace lockstep
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

// `length` contiguous numbers, as rows of 16 and a rest.
template <class T>
Moments moments_of_run(const T* x, int64_t length) {
  double mean[kTileWidth], m2[kTileWidth];
  Moments all;
  const Cut cut(1, length / kLanes);
  for (int64_t i = 0; i < cut.pieces(); ++i) {
    const auto p = cut.piece(i);
    if (p.rows == 0) continue;
    const Tile t{p.row * kLanes, 1, 0, p.rows, kLanes, kLanes};
    tile_moments(x, t, mean, m2);
    all.merge(merge_columns(mean, m2, kLanes, static_cast<double>(p.rows)));
  }
  if (const int rest = static_cast<int>(length % kLanes)) {
    tile_moments(x, {length - rest, 1, 0, 1, 0, rest}, mean, m2);
    all.merge(merge_columns(mean, m2, rest, 1));
  }
  return all;
}

struct Silu {
  HWY_INLINE Vec operator()(Vec z, int64_t, int64_t) const { return activate(Floats(), Activation::silu, z); }
};

// dy times SiLU's derivative at z.
template <class T>
struct SiluGrad {
  const T* dy;
  HWY_INLINE Vec operator()(Vec z, int64_t at, int64_t left) const {
    const Floats d;
    const Vec one = hn::Set(d, 1.0f), s = sigmoid(d, z);
    const Vec slope = hn::Mul(s, hn::Add(one, hn::Mul(z, hn::Sub(one, s))));
    return hn::Mul(load(dy + at, left), slope);
  }
};

template <class T>
void normalize16(bool silu, const T* x, T* y, int64_t length, const Normalize& of) {
  silu ? normalize16(x, y, length, of, Silu()) : normalize16(x, y, length, of);
}

inline void forward_lanes(const GroupNormGeometry& g, const GroupNormForward& a, int64_t block,
                          int64_t group) {
  const int64_t begin = group * g.per_group(), run = g.hw * kLanes, used = g.used(block);
  const float* x = a.x.as<float>() + block * g.unit_elements();
  float* y = a.y.as<float>() + block * g.unit_elements();
  double mean[kTileWidth], m2[kTileWidth];
  std::array<Moments, kLanes> lane;
  const Cut cut(1, g.per_group() * g.hw);
  for (int64_t i = 0; i < cut.pieces(); ++i) {
    const auto p = cut.piece(i);
    tile_moments(x, {begin * run + p.row * kLanes, 1, 0, p.rows, kLanes, kLanes}, mean, m2);
    for (size_t j = 0; j < kLanes; ++j) lane[j].merge({static_cast<double>(p.rows), mean[j], m2[j]});
  }
  float* means = a.stats + (block * 2 * g.groups + group) * kLanes;
  float* invstds = means + g.groups * kLanes;
  for (int64_t j = 0; j < kLanes; ++j) {
    const GroupNormStats s(lane[static_cast<size_t>(j)], g.eps);
    means[j] = j < used ? s.mean : 0;  // padding lanes
    invstds[j] = j < used ? s.invstd : 0;
  }
  HWY_ALIGN float scale[kLanes], shift[kLanes];
  for (int64_t c = begin; c < begin + g.per_group(); ++c) {
    for (int j = 0; j < kLanes; ++j) scale[j] = a.gamma[c] * invstds[j], shift[j] = a.beta[c];
    normalize16(g.silu, x + c * run, y + c * run, run, {means, scale, shift});
  }
}

template <class T>
void forward_plain(const GroupNormGeometry& g, const GroupNormForward& a, int64_t n, int64_t group) {
  const int64_t begin = group * g.per_group();
  const T* x = a.x.as<T>() + n * g.unit_elements();
  T* y = a.y.as<T>() + n * g.unit_elements();
  const GroupNormStats s(moments_of_run(x + begin * g.hw, g.per_group() * g.hw), g.eps);
  a.stats[n * 2 * g.groups + group] = s.mean;
  a.stats[(n * 2 + 1) * g.groups + group] = s.invstd;
  HWY_ALIGN float mean[kLanes], scale[kLanes], shift[kLanes];
  std::fill_n(mean, kLanes, s.mean);
  for (int64_t c = begin; c < begin + g.per_group(); ++c) {
    std::fill_n(scale, kLanes, a.gamma[c] * s.invstd);
    std::fill_n(shift, kLanes, a.beta[c]);
    normalize16(g.silu, x + c * g.hw, y + c * g.hw, g.hw, {mean, scale, shift});
  }
}

template <class T>
void forward_nhwc(const GroupNormGeometry& g, const GroupNormForward& a, int64_t n) {
  const T* x = a.x.as<T>() + n * g.unit_elements();
  std::byte* scratch = a.scratch + n * g.c * GroupNormGeometry::kScratch;
  Moments* channel = reinterpret_cast<Moments*>(scratch);
  float *mean = coefficients(scratch, g.c, 0), *scale = coefficients(scratch, g.c, 1);
  double means[kTileWidth], m2[kTileWidth];
  std::fill_n(channel, g.c, Moments());
  const Cut cut(1, g.hw);
  for (int64_t i = 0; i < cut.pieces(); ++i) {
    const auto p = cut.piece(i);
    for (int64_t first = 0; first < g.c; first += kTileWidth) {
      const int width = static_cast<int>(std::min<int64_t>(kTileWidth, g.c - first));
      tile_moments(x, {p.row * g.c + first, 1, 0, p.rows, g.c, width}, means, m2);
      for (int j = 0; j < width; ++j)
        channel[first + j].merge({static_cast<double>(p.rows), means[j], m2[j]});
    }
  }
  for (int64_t group = 0; group < g.groups; ++group) {
    const int64_t begin = group * g.per_group(), end = begin + g.per_group();
    Moments all;
    for (int64_t c = begin; c < end; ++c) all.merge(channel[c]);
    const GroupNormStats s(all, g.eps);
    a.stats[n * 2 * g.groups + group] = s.mean;
    a.stats[(n * 2 + 1) * g.groups + group] = s.invstd;
    for (int64_t c = begin; c < end; ++c) mean[c] = s.mean, scale[c] = a.gamma[c] * s.invstd;
  }
  const Normalize of{mean, scale, a.beta};
  T* y = a.y.as<T>() + n * g.unit_elements();
  g.silu ? normalize_rows(x, y, g.hw, g.c, of, Silu()) : normalize_rows(x, y, g.hw, g.c, of);
}

template <class T>
void forward(const GroupNormGeometry& g, const GroupNormForward& a, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) switch (g.layout) {
      case Layout::lanes:
        forward_lanes(g, a, task / g.groups, task % g.groups);
        break;
      case Layout::plain:
        forward_plain<T>(g, a, task / g.groups, task % g.groups);
        break;
      case Layout::nhwc:
        forward_nhwc<T>(g, a, task);
        break;
    }
}

void group_norm_forward(const GroupNormGeometry& g, const GroupNormForward& a, int64_t begin, int64_t end) {
  a.x.spec.dtype == DType::bf16 ? forward<bf16>(g, a, begin, end) : forward<float>(g, a, begin, end);
}

// dx = invstd (gamma dz - mean(gamma dz) - xhat mean(gamma dz xhat)), the means over the group. dz is dy or,
// where a SiLU stands between, is computed first: into dx, where it stays until dx is known, or into a
// thread's own floats where dx is bf16.
inline void backward_lanes(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t block,
                           int64_t group) {
  const int64_t begin = group * g.per_group(), end = begin + g.per_group(), run = g.hw * kLanes;
  const int64_t used = g.used(block), at = block * g.unit_elements();
  const float* means = a.stats + (block * 2 * g.groups + group) * kLanes;
  const float* invstds = means + g.groups * kLanes;
  const float *x = a.x.as<float>(), *dy_in = a.dy.as<float>();
  float* dx = a.dx.as<float>();
  const float* dz = g.silu ? dx : dy_in;
  HWY_ALIGN float scale[kLanes] = {}, shift[kLanes] = {}, slope[kLanes] = {};  // 0 in padding lanes
  double sum[kTileWidth], product[kTileWidth], dy[kLanes] = {}, dy_xhat[kLanes] = {};
  for (int64_t c = begin; c < end; ++c) {
    GroupNormSums& total = a.sums[block * g.c + c] = {};
    if (g.silu) {
      for (int64_t j = 0; j < used; ++j) scale[j] = a.gamma[c] * invstds[j], shift[j] = a.beta[c];
      const int64_t i = at + c * run;
      normalize16(x + i, dx + i, run, {means, scale, shift}, SiluGrad<float>{dy_in + i});
    }
    const Cut cut(1, g.hw);
    for (int64_t i = 0; i < cut.pieces(); ++i) {
      const auto p = cut.piece(i);
      tile_products(x + at, dz + at, {c * run + p.row * kLanes, 1, 0, p.rows, kLanes, kLanes}, means, sum,
                    product);
      for (int64_t j = 0; j < used; ++j) {
        const double of_xhat = product[j] * double{invstds[j]};
        total.dy += sum[j];
        total.dy_xhat += of_xhat;
        dy[j] += double{a.gamma[c]} * sum[j];
        dy_xhat[j] += double{a.gamma[c]} * of_xhat;
      }
    }
  }
  const double count = static_cast<double>(g.per_group() * g.hw);
  for (int64_t j = 0; j < used; ++j) {
    const double invstd = double{invstds[j]};
    shift[j] = static_cast<float>(invstd * dy[j] / count);
    slope[j] = static_cast<float>(invstd * invstd * dy_xhat[j] / count);
  }
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t j = 0; j < used; ++j) scale[j] = a.gamma[c] * invstds[j];
    const int64_t i = at + c * run;
    normalize_grad16(x + i, dz + i, dx + i, run, {means, scale, shift, slope});
  }
}

// Below dz [unit_elements] is the unit's: dy, or (writable) where a SiLU's gradient goes.
template <class T, class D>
void backward_plain(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t n, int64_t group, D* dz) {
  const int64_t begin = group * g.per_group(), end = begin + g.per_group(), at = n * g.unit_elements();
  const T *x = a.x.as<T>() + at, *dy_in = a.dy.as<T>() + at;
  T* dx = a.dx.as<T>() + at;
  const float mean = a.stats[n * 2 * g.groups + group], invstd = a.stats[(n * 2 + 1) * g.groups + group];
  HWY_ALIGN float center[kTileWidth], scale[kLanes], shift[kLanes], slope[kLanes];
  std::fill_n(center, kTileWidth, mean);
  double dy = 0, dy_xhat = 0;
  for (int64_t c = begin; c < end; ++c) {
    const int64_t i = c * g.hw;
    if constexpr (!std::is_const_v<D>) {
      std::fill_n(scale, kLanes, a.gamma[c] * invstd);
      std::fill_n(shift, kLanes, a.beta[c]);
      normalize16(x + i, dz + i, g.hw, {center, scale, shift}, SiluGrad<T>{dy_in + i});
    }
    double sum, product;
    products_of_run(x + i, dz + i, g.hw, center, sum, product);
    const GroupNormSums total = a.sums[n * g.c + c] = {sum, product * double{invstd}};
    dy += double{a.gamma[c]} * total.dy;
    dy_xhat += double{a.gamma[c]} * total.dy_xhat;
  }
  const double count = static_cast<double>(g.per_group() * g.hw);
  std::fill_n(shift, kLanes, static_cast<float>(double{invstd} * dy / count));
  std::fill_n(slope, kLanes, static_cast<float>(double{invstd} * double{invstd} * dy_xhat / count));
  for (int64_t c = begin; c < end; ++c) {
    std::fill_n(scale, kLanes, a.gamma[c] * invstd);
    const int64_t i = c * g.hw;
    normalize_grad16(x + i, dz + i, dx + i, g.hw, {center, scale, shift, slope});
  }
}

template <class T, class D>
void backward_nhwc(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t n, D* dz) {
  const int64_t at = n * g.unit_elements();
  const T *x = a.x.as<T>() + at, *dy_in = a.dy.as<T>() + at;
  const float *means = a.stats + n * 2 * g.groups, *invstds = means + g.groups;
  std::byte* scratch = a.scratch + n * g.c * GroupNormGeometry::kScratch;
  float *mean = coefficients(scratch, g.c, 0), *scale = coefficients(scratch, g.c, 1);
  float *shift = coefficients(scratch, g.c, 2), *slope = coefficients(scratch, g.c, 3);
  GroupNormSums* total = a.sums + n * g.c;
  float* invstd_of = slope;  // until the slope is known
  std::fill_n(total, g.c, GroupNormSums());
  for (int64_t group = 0; group < g.groups; ++group) {
    std::fill_n(mean + group * g.per_group(), g.per_group(), means[group]);
    std::fill_n(invstd_of + group * g.per_group(), g.per_group(), invstds[group]);
  }
  for (int64_t c = 0; c < g.c; ++c) scale[c] = a.gamma[c] * invstd_of[c];
  double sum[kTileWidth], product[kTileWidth];
  const Cut cut(1, g.hw);
  for (int64_t i = 0; i < cut.pieces(); ++i) {
    const auto p = cut.piece(i);
    if constexpr (!std::is_const_v<D>) {
      const int64_t k = p.row * g.c;
      normalize_rows(x + k, dz + k, p.rows, g.c, {mean, scale, a.beta}, SiluGrad<T>{dy_in + k});
    }
    for (int64_t first = 0; first < g.c; first += kTileWidth) {
      const int width = static_cast<int>(std::min<int64_t>(kTileWidth, g.c - first));
      tile_products(x, dz, {p.row * g.c + first, 1, 0, p.rows, g.c, width}, mean + first, sum, product);
      for (int j = 0; j < width; ++j) {
        total[first + j].dy += sum[j];
        total[first + j].dy_xhat += product[j] * double{invstd_of[first + j]};
      }
    }
  }
  const double count = static_cast<double>(g.per_group() * g.hw);
  for (int64_t group = 0; group < g.groups; ++group) {
    const int64_t begin = group * g.per_group(), end = begin + g.per_group();
    double dy = 0, dy_xhat = 0;
    for (int64_t c = begin; c < end; ++c) {
      dy += double{a.gamma[c]} * total[c].dy;
      dy_xhat += double{a.gamma[c]} * total[c].dy_xhat;
    }
    const double invstd = double{invstds[group]};
    for (int64_t c = begin; c < end; ++c) {
      shift[c] = static_cast<float>(invstd * dy / count);
      slope[c] = static_cast<float>(invstd * invstd * dy_xhat / count);
    }
  }
  normalize_grad_rows(x, dz, a.dx.as<T>() + at, g.hw, g.c, {mean, scale, shift, slope});
}

// dz_of(unit): where a unit's dz is or goes.
template <class T, class Dz>
void backward(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t begin, int64_t end,
              const Dz& dz_of) {
  for (int64_t task = begin; task < end; ++task) switch (g.layout) {
      case Layout::lanes:
        backward_lanes(g, a, task / g.groups, task % g.groups);
        break;
      case Layout::plain:
        backward_plain<T>(g, a, task / g.groups, task % g.groups, dz_of(task / g.groups));
        break;
      case Layout::nhwc:
        backward_nhwc<T>(g, a, task, dz_of(task));
        break;
    }
}

// floats: a thread's [unit_elements], where needs_floats.
void group_norm_backward(const GroupNormGeometry& g, const GroupNormBackward& a, float* floats, int64_t begin,
                         int64_t end) {
  const auto of = [&](auto* tensor) {
    return [&g, tensor](int64_t unit) { return tensor + unit * g.unit_elements(); };
  };
  if (a.x.spec.dtype == DType::bf16)
    g.silu ? backward<bf16>(g, a, begin, end, [&](int64_t) { return floats; })
           : backward<bf16>(g, a, begin, end, of(a.dy.as<const bf16>()));
  else
    g.silu ? backward<float>(g, a, begin, end, of(a.dx.as<float>()))
           : backward<float>(g, a, begin, end, of(a.dy.as<const float>()));
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {
namespace {

HWY_EXPORT(group_norm_forward);
HWY_EXPORT(group_norm_backward);

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

class Forward final : public Kernel {
 public:
  explicit Forward(const KernelRequest& r)
      : g_(r.params.as<GroupNormParams>(), r.in[0]), threads_(r.threads) {}
  int64_t workspace_bytes() const override { return g_.scratch_bytes(); }
  void run(const KernelArgs& args) override {
    const GroupNormForward a{args.in[0],
                             args.out[0],
                             args.in[1].as<float>(),
                             args.in[2].as<float>(),
                             args.out[1].as<float>(),
                             static_cast<std::byte*>(args.workspace)};
    const auto f = HWY_DYNAMIC_DISPATCH(group_norm_forward);
    parallel_ranges(g_.tasks(), threads_, kGrain / g_.task_elements(),
                    [&](int64_t begin, int64_t end) { f(g_, a, begin, end); });
  }

 private:
  GroupNormGeometry g_;
  int threads_;
};

class Backward final : public Kernel {
 public:
  explicit Backward(const KernelRequest& r)
      : g_(r.params.as<GroupNormParams>(), r.in[0]),
        threads_(r.threads),
        floats_(g_.silu && r.in[0].dtype == DType::bf16 ? g_.unit_elements() : 0) {}
  int64_t workspace_bytes() const override {
    return g_.sums_bytes() + g_.scratch_bytes() + threads_ * floats_ * size_of(DType::f32);
  }
  void run(const KernelArgs& args) override {
    std::byte* workspace = static_cast<std::byte*>(args.workspace);
    GroupNormSums* sums = reinterpret_cast<GroupNormSums*>(workspace);
    const GroupNormBackward a{args.in[0],
                              args.in[1],
                              args.out[0],
                              args.in[2].as<float>(),
                              args.in[3].as<float>(),
                              args.in[4].as<float>(),
                              sums,
                              workspace + g_.sums_bytes()};
    float* floats = reinterpret_cast<float*>(a.scratch + g_.scratch_bytes());
    const auto f = HWY_DYNAMIC_DISPATCH(group_norm_backward);
    parallel_ranges(g_.tasks(), threads_, kGrain / g_.task_elements(), [&](int64_t begin, int64_t end) {
      f(g_, a, floats + thread_index() * floats_, begin, end);
    });
    float *dgamma = args.out[1].as<float>(), *dbeta = args.out[2].as<float>();
    for (int64_t c = 0; c < g_.c; ++c) {
      GroupNormSums all;
      for (int64_t u = 0; u < g_.units(); ++u) {
        all.dy += sums[u * g_.c + c].dy;
        all.dy_xhat += sums[u * g_.c + c].dy_xhat;
      }
      dgamma[c] = static_cast<float>(all.dy_xhat);
      dbeta[c] = static_cast<float>(all.dy);
    }
  }

 private:
  GroupNormGeometry g_;
  int threads_;
  int64_t floats_;  // of each thread
};

void add(Registry& r, Layout layout, LayoutClass of, DType dtype) {
  const auto fits = [=](std::initializer_list<TensorSpec> images, const TensorSpec& stats) {
    return stats.layout == (layout == Layout::lanes ? Layout::lanes : Layout::plain) &&
           std::all_of(images.begin(), images.end(),
                       [=](const TensorSpec& s) { return s.layout == layout && s.dtype == dtype; });
  };
  r.add({"group_norm",
         name(layout),
         Device::cpu,
         of,
         dtype,
         {.threads = true, .shard = true},
         [fits](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return fits({q.in[0], q.out[0]}, q.out[1]) ? std::make_unique<Forward>(q) : nullptr;
         }});
  // dgamma and dbeta are rounded once for all of a rank's samples.
  r.add({"group_norm_grad",
         name(layout),
         Device::cpu,
         of,
         dtype,
         {.threads = true, .shard = false},
         [fits](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return fits({q.in[0], q.in[1], q.out[0]}, q.in[4]) ? std::make_unique<Backward>(q) : nullptr;
         }});
}

}  // namespace

void add_group_norm_simd(Registry& r) {
  add(r, Layout::lanes, LayoutClass::lanes, DType::f32);  // of bf16 nothing lies in lanes
  for (DType dtype : {DType::f32, DType::bf16}) {
    add(r, Layout::plain, LayoutClass::plain, dtype);
    add(r, Layout::nhwc, LayoutClass::nhwc, dtype);
  }
}

}  // namespace lockstep
#endif
