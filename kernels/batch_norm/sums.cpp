// SPDX-License-Identifier: Apache-2.0
// Batch norm's reductions, one pass over memory: batch_norm_stats and batch_norm_grad_sums.
//
// Per piece of about 4096 elements and channel: f32 sums that stay in the L1 cache, carried over to double;
// pieces are then merged in their order. So bits depend on the shape alone, not on threads or the
// instruction set.
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/batch_norm/geometry.h"
#include "kernels/core/kernel.h"
#include "kernels/core/parallel.h"
#include "kernels/simd/moments.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batch_norm/sums.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/simd/columns-inl.h"

#ifndef LOCKSTEP_BATCH_NORM_SUMS_ONCE
#define LOCKSTEP_BATCH_NORM_SUMS_ONCE
namespace lockstep {
struct BatchNormProducts {
  double dy = 0, dy_x = 0;  // sums of dy and of dy * (x - mean)
};
}  // namespace lockstep
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

template <class T>
void moments_of(const BatchNormGeometry& g, const T* x, int64_t begin, int64_t end, Moments* out) {
  double mean[kTileWidth], m2[kTileWidth];
  for (int64_t task = begin; task < end; ++task) {
    if (g.columns) {
      int64_t first = 0;
      const Tile t = g.columns_tile(task, first);
      tile_moments(x, t, mean, m2);
      Moments* to = out + task / g.tiles_across() * g.c + first;
      for (int i = 0; i < t.width; ++i) to[i] = {static_cast<double>(t.count()), mean[i], m2[i]};
      continue;
    }
    const auto tiles = g.run_tiles(task);
    Moments all;
    for (int i = 0; i < tiles.count; ++i) {
      tile_moments(x, tiles.tile[i], mean, m2);
      all.merge(merge_columns(mean, m2, tiles.counted[i], static_cast<double>(tiles.tile[i].count())));
    }
    out[task] = all;
  }
}

// back_of(c): of the columns from channel c on, or with `run` of all columns of a run of channel c.
struct StraightOf {
  HWY_INLINE Straight columns(int64_t) const { return {}; }
  HWY_INLINE Straight run(int64_t) { return {}; }
};
struct ThroughReluOf {
  const float *scale, *shift;
  HWY_ALIGN float scales[kTileWidth] = {}, shifts[kTileWidth] = {};
  HWY_INLINE ThroughRelu columns(int64_t c) const { return {scale + c, shift + c}; }
  HWY_INLINE ThroughRelu run(int64_t c) {
    std::fill_n(scales, kTileWidth, scale[c]);
    std::fill_n(shifts, kTileWidth, shift[c]);
    return {scales, shifts};
  }
};

template <class T, class BackOf>
void products_of(const BatchNormGeometry& g, const T* x, const T* dy, const float* mean, BackOf back,
                 int64_t begin, int64_t end, BatchNormProducts* out) {
  double sum[kTileWidth], product[kTileWidth];
  HWY_ALIGN float center[kTileWidth];
  for (int64_t task = begin; task < end; ++task) {
    if (g.columns) {
      int64_t first = 0;
      const Tile t = g.columns_tile(task, first);
      tile_products(x, dy, t, mean + first, sum, product, back.columns(first));
      BatchNormProducts* to = out + task / g.tiles_across() * g.c + first;
      for (int i = 0; i < t.width; ++i) to[i] = {sum[i], product[i]};
      continue;
    }
    std::fill_n(center, kTileWidth, mean[task % g.c]);
    const auto through = back.run(task % g.c);
    const auto tiles = g.run_tiles(task);
    BatchNormProducts all;
    for (int i = 0; i < tiles.count; ++i) {
      tile_products(x, dy, tiles.tile[i], center, sum, product, through);
      for (int j = 0; j < tiles.counted[i]; ++j) {
        all.dy += sum[j];
        all.dy_x += product[j];
      }
    }
    out[task] = all;
  }
}

void batch_norm_moments(const BatchNormGeometry& g, const View& x, int64_t begin, int64_t end, Moments* out) {
  if (x.spec.dtype == DType::bf16)
    moments_of(g, x.as<const bf16>(), begin, end, out);
  else
    moments_of(g, x.as<const float>(), begin, end, out);
}

template <class T>
void products_of(const BatchNormGeometry& g, const View& x, const View& dy, const Normalize& of,
                 int64_t begin, int64_t end, BatchNormProducts* out) {
  const T *px = x.as<const T>(), *pdy = dy.as<const T>();
  if (of.scale)
    products_of(g, px, pdy, of.mean, ThroughReluOf{of.scale, of.shift}, begin, end, out);
  else
    products_of(g, px, pdy, of.mean, StraightOf(), begin, end, out);
}

// of: scale and shift where relu follows the norm, else null.
void batch_norm_products(const BatchNormGeometry& g, const View& x, const View& dy, const Normalize& of,
                         int64_t begin, int64_t end, BatchNormProducts* out) {
  if (x.spec.dtype == DType::bf16)
    products_of<bf16>(g, x, dy, of, begin, end, out);
  else
    products_of<float>(g, x, dy, of, begin, end, out);
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {
namespace {

HWY_EXPORT(batch_norm_moments);
HWY_EXPORT(batch_norm_products);

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

class Stats final : public Kernel {
 public:
  Stats(const TensorSpec& x, int threads) : g_(x), threads_(threads) {}
  int64_t workspace_bytes() const override {
    return g_.pieces() * g_.c * static_cast<int64_t>(sizeof(Moments));
  }
  void run(const KernelArgs& args) override {
    Moments* pieces = static_cast<Moments*>(args.workspace);
    const View& x = args.in[0];
    const auto f = HWY_DYNAMIC_DISPATCH(batch_norm_moments);
    parallel_ranges(g_.tasks(), threads_, kGrain / g_.elements_a_task(),
                    [&](int64_t begin, int64_t end) { f(g_, x, begin, end, pieces); });
    float* part = args.out[0].as<float>();
    for (int64_t c = 0; c < g_.c; ++c) {
      Moments all;
      for (int64_t p = 0; p < g_.pieces(); ++p) all.merge(pieces[p * g_.c + c]);
      part[c] = static_cast<float>(all.count);
      part[g_.c + c] = static_cast<float>(all.mean);
      part[2 * g_.c + c] = static_cast<float>(all.m2);
    }
  }

 private:
  BatchNormGeometry g_;
  int threads_;
};

class GradSums final : public Kernel {
 public:
  GradSums(const KernelRequest& r)
      : relu_(r.params.as<BatchNormParams>().activation == Activation::relu),
        g_(r.in[0]),
        threads_(r.threads) {}
  int64_t workspace_bytes() const override {
    return pieces_bytes() + (relu_ ? g_.c * static_cast<int64_t>(sizeof(float)) : 0);
  }
  void run(const KernelArgs& args) override {
    BatchNormProducts* pieces = static_cast<BatchNormProducts*>(args.workspace);
    const View &x = args.in[0], &dy = args.in[1];
    const float *mean = args.in[2].as<float>() + g_.c, *invstd = mean + 2 * g_.c;
    Normalize of{mean, nullptr, nullptr};
    if (relu_) {
      auto* scale = reinterpret_cast<float*>(static_cast<std::byte*>(args.workspace) + pieces_bytes());
      const float* gamma = args.in[3].as<float>();
      for (int64_t c = 0; c < g_.c; ++c) scale[c] = batch_norm_scale(gamma[c], invstd[c]);
      of.scale = scale, of.shift = args.in[4].as<float>();
    }
    const auto f = HWY_DYNAMIC_DISPATCH(batch_norm_products);
    parallel_ranges(g_.tasks(), threads_, kGrain / g_.elements_a_task(),
                    [&](int64_t begin, int64_t end) { f(g_, x, dy, of, begin, end, pieces); });
    float* sums = args.out[0].as<float>();
    for (int64_t c = 0; c < g_.c; ++c) {
      BatchNormProducts all;
      for (int64_t p = 0; p < g_.pieces(); ++p) {
        all.dy += pieces[p * g_.c + c].dy;
        all.dy_x += pieces[p * g_.c + c].dy_x;
      }
      sums[c] = static_cast<float>(all.dy);
      sums[g_.c + c] = static_cast<float>(all.dy_x * double{invstd[c]});
    }
  }

 private:
  int64_t pieces_bytes() const {
    return g_.pieces() * g_.c * static_cast<int64_t>(sizeof(BatchNormProducts));
  }
  bool relu_;
  BatchNormGeometry g_;
  int threads_;
};

}  // namespace

void add_batch_norm_sums(Registry& r) {
  const auto add = [&](Layout layout, LayoutClass of, DType dtype) {
    const auto fits = [=](const TensorSpec& s) { return s.layout == layout && s.dtype == dtype; };
    // Pieces cover many samples, so a cut of the batch shows in the last bits.
    const BitExact bits{.threads = true, .shard = false};
    r.add({"batch_norm_stats", name(layout), Device::cpu, of, dtype, bits,
           [fits](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return fits(q.in[0]) ? std::make_unique<Stats>(q.in[0], q.threads) : nullptr;
           }});
    r.add({"batch_norm_grad_sums", name(layout), Device::cpu, of, dtype, bits,
           [fits](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             return fits(q.in[0]) && fits(q.in[1]) ? std::make_unique<GradSums>(q) : nullptr;
           }});
  };
  for (DType dtype : {DType::f32, DType::bf16}) {
    add(Layout::lanes, LayoutClass::lanes, dtype);
    add(Layout::plain, LayoutClass::plain, dtype);
    add(Layout::nhwc, LayoutClass::nhwc, dtype);
  }
}

}  // namespace lockstep
#endif
