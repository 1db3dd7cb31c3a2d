// group_norm and group_norm_grad with Highway in three layouts.
//
// Sums run in f32 over at most kTileRows rows, then in double, always in the same order; statistics in two
// passes over each such piece. A group is read from memory once where it fits the cache: it is normalised
// right after its statistics. No fma, so all instruction sets give equal bits; with SiLU those that have fma
// do.
#include <array>
#include <cmath>

#include "kernels/core/kernel.h"
#include "kernels/core/parallel.h"
#include "kernels/group_norm/geometry.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/group_norm/simd.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/core/activate-inl.h"
#include "kernels/core/columns-inl.h"

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

}  // namespace lockstep
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

// `length` contiguous floats, as rows of 16 and a rest.
inline Moments moments_of_run(const float* x, int64_t length) {
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
struct SiluGrad {
  const float* dy;
  HWY_INLINE Vec operator()(Vec z, int64_t at, int64_t left) const {
    const Floats d;
    const Vec one = hn::Set(d, 1.0f), s = sigmoid(d, z);
    const Vec slope = hn::Mul(s, hn::Add(one, hn::Mul(z, hn::Sub(one, s))));
    return hn::Mul(load(dy + at, left), slope);
  }
};

inline void normalize16(bool silu, const float* x, float* y, int64_t length, const Normalize& of) {
  silu ? normalize16(x, y, length, of, Silu()) : normalize16(x, y, length, of);
}

inline void forward_lanes(const GroupNormGeometry& g, const GroupNormForward& a, int64_t block,
                          int64_t group) {
  const int64_t begin = group * g.per_group(), run = g.hw * kLanes, used = g.used(block);
  const float* x = a.x + block * g.unit_elements();
  float* y = a.y + block * g.unit_elements();
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

inline void forward_plain(const GroupNormGeometry& g, const GroupNormForward& a, int64_t n, int64_t group) {
  const int64_t begin = group * g.per_group();
  const float* x = a.x + n * g.unit_elements();
  float* y = a.y + n * g.unit_elements();
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

inline void forward_nhwc(const GroupNormGeometry& g, const GroupNormForward& a, int64_t n) {
  const float* x = a.x + n * g.unit_elements();
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
  float* y = a.y + n * g.unit_elements();
  g.silu ? normalize_rows(x, y, g.hw, g.c, of, Silu()) : normalize_rows(x, y, g.hw, g.c, of);
}

void group_norm_forward(const GroupNormGeometry& g, const GroupNormForward& a, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) switch (g.layout) {
      case Layout::lanes:
        forward_lanes(g, a, task / g.groups, task % g.groups);
        break;
      case Layout::plain:
        forward_plain(g, a, task / g.groups, task % g.groups);
        break;
      case Layout::nhwc:
        forward_nhwc(g, a, task);
        break;
    }
}

// dx = invstd (gamma dz - mean(gamma dz) - xhat mean(gamma dz xhat)), the means over the group. dz is dy or,
// where a SiLU stands between, lies in dx until that is known.
inline void backward_lanes(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t block,
                           int64_t group) {
  const int64_t begin = group * g.per_group(), end = begin + g.per_group(), run = g.hw * kLanes;
  const int64_t used = g.used(block), at = block * g.unit_elements();
  const float* means = a.stats + (block * 2 * g.groups + group) * kLanes;
  const float* invstds = means + g.groups * kLanes;
  const float* dz = g.silu ? a.dx : a.dy;
  HWY_ALIGN float scale[kLanes] = {}, shift[kLanes] = {}, slope[kLanes] = {};  // 0 in padding lanes
  double sum[kTileWidth], product[kTileWidth], dy[kLanes] = {}, dy_xhat[kLanes] = {};
  for (int64_t c = begin; c < end; ++c) {
    GroupNormSums& total = a.sums[block * g.c + c] = {};
    if (g.silu) {
      for (int64_t j = 0; j < used; ++j) scale[j] = a.gamma[c] * invstds[j], shift[j] = a.beta[c];
      const int64_t i = at + c * run;
      normalize16(a.x + i, a.dx + i, run, {means, scale, shift}, SiluGrad{a.dy + i});
    }
    const Cut cut(1, g.hw);
    for (int64_t i = 0; i < cut.pieces(); ++i) {
      const auto p = cut.piece(i);
      tile_products(a.x + at, dz + at, {c * run + p.row * kLanes, 1, 0, p.rows, kLanes, kLanes}, means, sum,
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
    normalize_grad16(a.x + i, dz + i, a.dx + i, run, {means, scale, shift, slope});
  }
}

inline void backward_plain(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t n, int64_t group) {
  const int64_t begin = group * g.per_group(), end = begin + g.per_group(), at = n * g.unit_elements();
  const float mean = a.stats[n * 2 * g.groups + group], invstd = a.stats[(n * 2 + 1) * g.groups + group];
  HWY_ALIGN float center[kTileWidth], scale[kLanes], shift[kLanes], slope[kLanes];
  const float* dz = g.silu ? a.dx : a.dy;
  std::fill_n(center, kTileWidth, mean);
  double dy = 0, dy_xhat = 0;
  for (int64_t c = begin; c < end; ++c) {
    const int64_t i = at + c * g.hw;
    if (g.silu) {
      std::fill_n(scale, kLanes, a.gamma[c] * invstd);
      std::fill_n(shift, kLanes, a.beta[c]);
      normalize16(a.x + i, a.dx + i, g.hw, {center, scale, shift}, SiluGrad{a.dy + i});
    }
    double sum, product;
    products_of_run(a.x + i, dz + i, g.hw, center, sum, product);
    const GroupNormSums total = a.sums[n * g.c + c] = {sum, product * double{invstd}};
    dy += double{a.gamma[c]} * total.dy;
    dy_xhat += double{a.gamma[c]} * total.dy_xhat;
  }
  const double count = static_cast<double>(g.per_group() * g.hw);
  std::fill_n(shift, kLanes, static_cast<float>(double{invstd} * dy / count));
  std::fill_n(slope, kLanes, static_cast<float>(double{invstd} * double{invstd} * dy_xhat / count));
  for (int64_t c = begin; c < end; ++c) {
    std::fill_n(scale, kLanes, a.gamma[c] * invstd);
    const int64_t i = at + c * g.hw;
    normalize_grad16(a.x + i, dz + i, a.dx + i, g.hw, {center, scale, shift, slope});
  }
}

inline void backward_nhwc(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t n) {
  const int64_t at = n * g.unit_elements();
  const float *means = a.stats + n * 2 * g.groups, *invstds = means + g.groups;
  std::byte* scratch = a.scratch + n * g.c * GroupNormGeometry::kScratch;
  float *mean = coefficients(scratch, g.c, 0), *scale = coefficients(scratch, g.c, 1);
  float *shift = coefficients(scratch, g.c, 2), *slope = coefficients(scratch, g.c, 3);
  GroupNormSums* total = a.sums + n * g.c;
  float* invstd_of = slope;  // until the slope is known
  const float* dz = g.silu ? a.dx : a.dy;
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
    if (const int64_t k = at + p.row * g.c; g.silu)
      normalize_rows(a.x + k, a.dx + k, p.rows, g.c, {mean, scale, a.beta}, SiluGrad{a.dy + k});
    for (int64_t first = 0; first < g.c; first += kTileWidth) {
      const int width = static_cast<int>(std::min<int64_t>(kTileWidth, g.c - first));
      tile_products(a.x + at, dz + at, {p.row * g.c + first, 1, 0, p.rows, g.c, width}, mean + first, sum,
                    product);
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
  normalize_grad_rows(a.x + at, dz + at, a.dx + at, g.hw, g.c, {mean, scale, shift, slope});
}

void group_norm_backward(const GroupNormGeometry& g, const GroupNormBackward& a, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) switch (g.layout) {
      case Layout::lanes:
        backward_lanes(g, a, task / g.groups, task % g.groups);
        break;
      case Layout::plain:
        backward_plain(g, a, task / g.groups, task % g.groups);
        break;
      case Layout::nhwc:
        backward_nhwc(g, a, task);
        break;
    }
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
    const GroupNormForward a{args.in[0].as<float>(),  args.in[1].as<float>(),
                             args.in[2].as<float>(),  args.out[0].as<float>(),
                             args.out[1].as<float>(), static_cast<std::byte*>(args.workspace)};
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
      : g_(r.params.as<GroupNormParams>(), r.in[0]), threads_(r.threads) {}
  int64_t workspace_bytes() const override { return g_.sums_bytes() + g_.scratch_bytes(); }
  void run(const KernelArgs& args) override {
    std::byte* workspace = static_cast<std::byte*>(args.workspace);
    GroupNormSums* sums = reinterpret_cast<GroupNormSums*>(workspace);
    const GroupNormBackward a{args.in[0].as<float>(),
                              args.in[1].as<float>(),
                              args.in[2].as<float>(),
                              args.in[3].as<float>(),
                              args.in[4].as<float>(),
                              args.out[0].as<float>(),
                              sums,
                              workspace + g_.sums_bytes()};
    const auto f = HWY_DYNAMIC_DISPATCH(group_norm_backward);
    parallel_ranges(g_.tasks(), threads_, kGrain / g_.task_elements(),
                    [&](int64_t begin, int64_t end) { f(g_, a, begin, end); });
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
};

}  // namespace

void add_group_norm_simd(Registry& r) {
  for (auto [layout, of] : {std::pair{Layout::lanes, LayoutClass::lanes},
                            {Layout::plain, LayoutClass::plain},
                            {Layout::nhwc, LayoutClass::nhwc}}) {
    const auto fits = [l = layout](const TensorSpec& x, const TensorSpec& stats) {
      const Layout expected = l == Layout::lanes ? Layout::lanes : Layout::plain;
      return x.layout == l && x.dtype == DType::f32 && stats.layout == expected;
    };
    r.add({"group_norm",
           name(layout),
           Device::cpu,
           of,
           DType::f32,
           {.threads = true, .shard = true},
           [fits](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return fits(q.in[0], q.out[1]) ? std::make_unique<Forward>(q) : nullptr;
           }});
    // dgamma and dbeta are rounded once for all of a rank's samples.
    r.add({"group_norm_grad",
           name(layout),
           Device::cpu,
           of,
           DType::f32,
           {.threads = true, .shard = false},
           [fits](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return fits(q.in[0], q.in[4]) ? std::make_unique<Backward>(q) : nullptr;
           }});
  }
}

}  // namespace lockstep
#endif
