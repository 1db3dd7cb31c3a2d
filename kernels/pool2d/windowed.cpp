// SPDX-License-Identifier: Apache-2.0
// One source for three layouts: an image is seen as [planes][H][W][V] with V contiguous numbers that
// share a window. lanes: planes = blocks * C, V = 16 samples; nhwc: planes = N, V = C; plain: planes =
// N * C, V = 1, with vectors along a row for the 2x2 stride 2 case.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pool2d/windowed.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/simd/vector-inl.h"

#include <algorithm>

#include "kernels/core/parallel.h"
#include "kernels/pool2d/geometry.h"
#include "kernels/pool2d/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::pool2d {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using lockstep::HWY_NAMESPACE::HalvesOf;
using lockstep::HWY_NAMESPACE::load_as;
using lockstep::HWY_NAMESPACE::store_as;

// T is float or bf16.
constexpr int64_t kGrainBytes = 32 << 10;  // of image a thread should have at least

// f(tag, i) for pieces of [0, n) as long as vectors are, down to single numbers. With kRepeat the last vector
// may overlap the one before: for pure functions, which write the same numbers twice.
template <bool kRepeat, class F>
HWY_INLINE void for_pieces(int64_t n, F f) {
  if (n == 1) return f(hn::CappedTag<float, 1>(), 0);
  int64_t i = 0;
  const auto go = [&](auto d) {
    const auto step = static_cast<int64_t>(hn::Lanes(d));
    if (n < step) return;
    for (; i + step <= n; i += step) f(d, i);
    if (kRepeat && i < n) f(d, n - step), i = n;
  };
  go(hn::ScalableTag<float>());
  if (i == n) return;
  go(hn::CappedTag<float, 8>());
  go(hn::CappedTag<float, 4>());
  go(hn::CappedTag<float, 1>());
}

// Of two candidates the later one wins if it is larger, or the first NaN.
template <class V>
HWY_INLINE auto wins(V later, V first) {
  return hn::AndNot(hn::Le(later, first), hn::Eq(first, first));
}

template <class D, class V = hn::Vec<D>>
struct Best {
  V value;
  hn::Vec<hn::Rebind<int32_t, D>> at;

  HWY_INLINE void meet(D d, V v, hn::Vec<hn::Rebind<int32_t, D>> i) {
    const auto m = wins(v, value);
    value = hn::IfThenElse(m, v, value);
    at = hn::IfThenElse(hn::RebindMask(hn::Rebind<int32_t, D>(), m), i, at);
    (void)d;
  }
  template <class T>
  HWY_INLINE void store(D d, bool relu, T* y, uint8_t* index) const {
    const hn::Rebind<int32_t, D> di;
    auto stored = value;
    auto position = at;
    if (relu) {
      const auto none = hn::Le(value, hn::Zero(d));
      stored = hn::IfThenZeroElse(none, value);
      position = hn::IfThenElse(hn::RebindMask(di, none), hn::Set(di, Pool2dParams::kNoMaximum), at);
    }
    store_as(d, stored, y);
    hn::StoreU(hn::DemoteTo(hn::Rebind<uint8_t, D>(), position), hn::Rebind<uint8_t, D>(), index);
  }
};

// The maximum of a 2x2 window given as its four numbers.
template <class D, class V = hn::Vec<D>>
HWY_INLINE Best<D> best_of_4(D d, V a, V b, V c, V e) {
  const hn::Rebind<int32_t, D> di;
  Best<D> top{a, hn::Zero(di)}, bottom{c, hn::Set(di, 2)};
  top.meet(d, b, hn::Set(di, 1));
  bottom.meet(d, e, hn::Set(di, 3));
  top.meet(d, bottom.value, bottom.at);
  return top;
}

template <class D, class T>
HWY_INLINE void load_pairs(D d, const T* p, hn::Vec<D>& even, hn::Vec<D>& odd) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    even = load_as(d, p);
    odd = load_as(d, p + 1);
  } else if constexpr (sizeof(T) == 2) {
    hn::Vec<HalvesOf<D>> first, second;
    hn::LoadInterleaved2(HalvesOf<D>(), lockstep::HWY_NAMESPACE::bits_of(p), first, second);
    even = lockstep::HWY_NAMESPACE::widened(d, first);
    odd = lockstep::HWY_NAMESPACE::widened(d, second);
  } else {
    hn::LoadInterleaved2(d, p, even, odd);
  }
}

template <class D, class T>
HWY_INLINE void store_pairs(D d, hn::Vec<D> even, hn::Vec<D> odd, T* p) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    store_as(d, even, p);
    store_as(d, odd, p + 1);
  } else if constexpr (sizeof(T) == 2) {
    using lockstep::HWY_NAMESPACE::rounded;
    hn::StoreInterleaved2(rounded(d, even), rounded(d, odd), HalvesOf<D>(),
                          lockstep::HWY_NAMESPACE::bits_of(p));
  } else {
    hn::StoreInterleaved2(even, odd, d, p);
  }
}

template <class D>
HWY_INLINE auto load_index(D, const uint8_t* p) {
  return hn::PromoteTo(hn::Rebind<int32_t, D>(), hn::LoadU(hn::Rebind<uint8_t, D>(), p));
}

// `g` where the maximum was at `position`, else 0.
template <class D>
HWY_INLINE hn::Vec<D> share_of_max(D d, hn::Vec<D> g, hn::Vec<hn::Rebind<int32_t, D>> at, int64_t position) {
  const auto here = hn::Eq(at, hn::Set(hn::Rebind<int32_t, D>(), static_cast<int32_t>(position)));
  return hn::IfThenElseZero(hn::RebindMask(d, here), g);
}

// One output vector from a window's numbers: load(r, s).
template <bool kMax, class D, class Load, class T>
HWY_INLINE void pool(D d, const Geometry& g, const Window& h, const Window& w, float scale, Load load, T* y,
                     uint8_t* index) {
  if constexpr (kMax) {
    const auto position = [&](int64_t r, int64_t s) {
      return hn::Set(hn::Rebind<int32_t, D>(), static_cast<int32_t>(r * g.p.kernel_w + s));
    };
    Best<D> best{load(h.r0, w.r0), position(h.r0, w.r0)};
    for (int64_t r = h.r0; r < h.r1; ++r)
      for (int64_t s = w.r0; s < w.r1; ++s) best.meet(d, load(r, s), position(r, s));
    best.store(d, g.p.relu(), y, index);
  } else {
    auto sum = hn::Zero(d);
    for (int64_t r = h.r0; r < h.r1; ++r)
      for (int64_t s = w.r0; s < w.r1; ++s) sum = hn::Add(sum, load(r, s));
    store_as(d, hn::Mul(sum, hn::Set(d, scale)), y);
  }
}

template <bool kMax>
float scale_of(const Geometry& g, const Window& h, const Window& w) {
  return kMax ? 1 : 1 / static_cast<float>(divisor(g.p, h, w));
}

// Columns [first, last) of one row of y, numbers that share a window side by side.
template <bool kMax, class T>
void forward_columns(const Geometry& g, const T* image, const Window& h, int64_t first, int64_t last, T* y,
                     uint8_t* index) {
  const int64_t line = g.w * g.v, dh = g.p.dilation_h * line, dw = g.p.dilation_w * g.v;
  if (kMax && g.pairs) {
    const T *top = image + h.start * line, *bottom = top + line;
    for (int64_t q = first; q < last; ++q)
      for_pieces<true>(g.v, [&](auto d, int64_t i) {
        const int64_t a = 2 * q * g.v + i, b = a + g.v, to = q * g.v + i;
        const auto best = best_of_4(d, load_as(d, top + a), load_as(d, top + b), load_as(d, bottom + a),
                                    load_as(d, bottom + b));
        best.store(d, g.p.relu(), y + to, index + to);
      });
    return;
  }
  for (int64_t q = first; q < last; ++q) {
    const Window& w = g.columns[static_cast<size_t>(q)];
    const float scale = scale_of<kMax>(g, h, w);
    for_pieces<true>(g.v, [&](auto d, int64_t i) {
      const int64_t o = h.start * line + w.start * g.v + i, to = q * g.v + i;
      const auto load = [&](int64_t r, int64_t s) { return load_as(d, image + (o + r * dh + s * dw)); };
      pool<kMax>(d, g, h, w, scale, load, y + to, kMax ? index + to : nullptr);
    });
  }
}

// One row of y. In the plain layout vectors lie along it, but for what is near the image's edges.
template <bool kMax, class T>
void forward_row(const Geometry& g, const T* image, const Window& h, T* y, uint8_t* index) {
  const auto q_count = static_cast<int64_t>(g.columns.size());
  const int64_t first = g.inner_first, last = g.inner_last;
  if (g.pairs && kMax && g.v == 1) {
    const T* top = image + h.start * g.w;
    for_pieces<true>(q_count, [&](auto d, int64_t q) {
      hn::Vec<decltype(d)> a, b, c, e;
      load_pairs(d, top + 2 * q, a, b);
      load_pairs(d, top + g.w + 2 * q, c, e);
      best_of_4(d, a, b, c, e).store(d, g.p.relu(), y + q, index + q);
    });
    return;
  }
  forward_columns<kMax>(g, image, h, 0, first, y, index);
  if (first < last) {
    const Window& w = g.columns[static_cast<size_t>(first)];
    const float scale = scale_of<kMax>(g, h, w);
    const int64_t stride = g.p.stride_w;
    for_pieces<true>(last - first, [&](auto d, int64_t i) {
      const int64_t o = h.start * g.w + w.start + i * stride;
      const auto load = [&](int64_t r, int64_t s) {
        const T* from = image + (o + r * g.p.dilation_h * g.w + s * g.p.dilation_w);
        hn::Vec<decltype(d)> even, odd;
        if (stride == 1) return load_as(d, from);
        load_pairs(d, from, even, odd);
        return even;
      };
      pool<kMax>(d, g, h, w, scale, load, y + first + i, kMax ? index + first + i : nullptr);
    });
  }
  forward_columns<kMax>(g, image, h, last, q_count, y, index);
}

// One plane of dx. `tiles` writes every number once; overlapping windows add into zeros, in f32 only.
template <bool kMax, bool kTiles, class T>
void backward_plane(const Geometry& g, const T* dy, const uint8_t* index, T* dx) {
  const auto q_count = static_cast<int64_t>(g.columns.size());
  const int64_t line = g.w * g.v;
  const int64_t dh = g.p.dilation_h * line, dw = g.p.dilation_w * g.v;
  if constexpr (!kTiles) std::fill(dx, dx + g.h * line, T(0.0f));
  for (const Window& h : g.rows) {
    T* band = dx + h.start * line;
    if (kMax && !kTiles && g.v == 1) {  // one sum a window; the index came from the forward op
      for (int64_t q = 0; q < q_count; ++q) {
        if (g.p.relu() && index[q] == Pool2dParams::kNoMaximum) continue;
        T& to = band[g.columns[static_cast<size_t>(q)].start + g.taps[index[q]]];
        to = T(float(to) + float(dy[q]));
      }
    } else if (kMax && kTiles && g.pairs && g.v == 1) {
      for_pieces<true>(q_count, [&](auto d, int64_t q) {
        const auto grad = load_as(d, dy + q);
        const auto at = load_index(d, index + q);
        for (int64_t r = 0; r < 2; ++r)
          store_pairs(d, share_of_max(d, grad, at, 2 * r), share_of_max(d, grad, at, 2 * r + 1),
                      band + r * line + 2 * q);
      });
    } else {
      for (int64_t q = 0; q < q_count; ++q) {
        const Window& w = g.columns[static_cast<size_t>(q)];
        const float scale = scale_of<kMax>(g, h, w);
        const int64_t origin = h.start * line + w.start * g.v;
        for_pieces<kTiles>(g.v, [&](auto d, int64_t i) {
          const auto grad = hn::Mul(load_as(d, dy + q * g.v + i), hn::Set(d, scale));
          auto at = hn::Zero(hn::Rebind<int32_t, decltype(d)>());
          if constexpr (kMax) at = load_index(d, index + q * g.v + i);
          for (int64_t r = h.r0; r < h.r1; ++r)
            for (int64_t s = w.r0; s < w.r1; ++s) {
              T* to = dx + (origin + r * dh + s * dw + i);
              auto share = grad;
              if constexpr (kMax) share = share_of_max(d, grad, at, r * g.p.kernel_w + s);
              if constexpr (!kTiles) share = hn::Add(load_as(d, to), share);
              store_as(d, share, to);
            }
        });
      }
    }
    if constexpr (kTiles)  // what lies right of the last window
      for (int64_t r = h.r0; r < h.r1 && g.covered_w < g.w; ++r)
        std::fill(band + r * line + g.covered_w * g.v, band + (r + 1) * line, T(0.0f));
    dy += q_count * g.v;
    if constexpr (kMax) index += q_count * g.v;
  }
  if constexpr (kTiles) std::fill(dx + g.covered_h * line, dx + g.h * line, T(0.0f));
}

template <bool kMax, class T>
void forward(const Geometry& g, const Images& t) {
  const auto* x = static_cast<const T*>(t.x);
  auto* y = static_cast<T*>(t.y);
  const auto p_count = static_cast<int64_t>(g.rows.size());
  const int64_t y_line = static_cast<int64_t>(g.columns.size()) * g.v, plane = g.h * g.w * g.v;
  const int64_t grain = kGrainBytes * p_count / (4 * plane) + 1;
  parallel_ranges(t.planes * p_count, t.threads, grain, [&](int64_t begin, int64_t end) {
    int64_t n = begin / p_count, p = begin % p_count;
    for (int64_t row = begin; row < end; ++row) {
      forward_row<kMax>(g, x + n * plane, g.rows[static_cast<size_t>(p)], y + row * y_line,
                        kMax ? t.index + row * y_line : nullptr);
      if (++p == p_count) p = 0, ++n;
    }
  });
}

template <bool kMax, class T>
void backward(const Geometry& g, const Images& t) {
  const auto* dy = static_cast<const T*>(t.x);
  auto* dx = static_cast<T*>(t.y);
  const int64_t y_plane = static_cast<int64_t>(g.rows.size() * g.columns.size()) * g.v;
  const int64_t plane = g.h * g.w * g.v;
  parallel_ranges(t.planes, t.threads, kGrainBytes / (4 * plane) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const uint8_t* index = kMax ? t.index_in + n * y_plane : nullptr;
      if (g.tiles)
        backward_plane<kMax, true>(g, dy + n * y_plane, index, dx + n * plane);
      else
        backward_plane<kMax, false>(g, dy + n * y_plane, index, dx + n * plane);
    }
  });
}

template <bool kMax>
void forward(const Geometry& g, const Images& t) {
  t.bf16 ? forward<kMax, bf16>(g, t) : forward<kMax, float>(g, t);
}
template <bool kMax>
void backward(const Geometry& g, const Images& t) {
  t.bf16 ? backward<kMax, bf16>(g, t) : backward<kMax, float>(g, t);
}

void max_forward(const Geometry& g, const Images& t) { forward<true>(g, t); }
void avg_forward(const Geometry& g, const Images& t) { forward<false>(g, t); }
void max_backward(const Geometry& g, const Images& t) { backward<true>(g, t); }
void avg_backward(const Geometry& g, const Images& t) { backward<false>(g, t); }

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::pool2d
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::pool2d {
namespace {

HWY_EXPORT(max_forward);
HWY_EXPORT(avg_forward);
HWY_EXPORT(max_backward);
HWY_EXPORT(avg_backward);

enum class Pass { max_forward, avg_forward, max_backward, avg_backward };
constexpr bool is_max(Pass p) { return p == Pass::max_forward || p == Pass::max_backward; }
constexpr bool is_forward(Pass p) { return p == Pass::max_forward || p == Pass::avg_forward; }

class Windowed final : public Kernel {
 public:
  Windowed(Pass pass, Geometry g, int threads) : pass_(pass), g_(std::move(g)), threads_(threads) {}

  void run(const KernelArgs& args) override {
    const View& image = is_forward(pass_) ? args.in[0] : args.out[0];
    Images t{.bf16 = image.spec.dtype == DType::bf16,
             .x = args.in[0].data,
             .y = args.out[0].data,
             .threads = threads_};
    if (pass_ == Pass::max_forward) t.index = args.out[1].as<uint8_t>();
    if (pass_ == Pass::max_backward) t.index_in = args.in[1].as<uint8_t>();
    t.planes = image.spec.stored_elements() / (g_.h * g_.w * g_.v);
    switch (pass_) {
      case Pass::max_forward:
        HWY_DYNAMIC_DISPATCH(max_forward)(g_, t);
        break;
      case Pass::avg_forward:
        HWY_DYNAMIC_DISPATCH(avg_forward)(g_, t);
        break;
      case Pass::max_backward:
        HWY_DYNAMIC_DISPATCH(max_backward)(g_, t);
        break;
      case Pass::avg_backward:
        HWY_DYNAMIC_DISPATCH(avg_backward)(g_, t);
        break;
    }
  }

 private:
  Pass pass_;
  Geometry g_;
  int threads_;
};

template <Pass kPass>
std::unique_ptr<Kernel> make(const KernelRequest& request) {
  const TensorSpec& image = is_forward(kPass) ? request.in[0] : request.out[0];
  Pool2dParams p = request.params.as<Pool2dParams>();
  if (!is_max(kPass)) p.dilation_h = p.dilation_w = 1;
  auto geometry = make_geometry(p, image);
  if (!geometry) return nullptr;
  const bool bf16 = image.dtype == DType::bf16;
  if (request.in[0].dtype != request.out[0].dtype || (bf16 && !is_forward(kPass) && !geometry->tiles))
    return nullptr;
  return std::make_unique<Windowed>(kPass, std::move(*geometry), request.threads);
}

template <Pass kPass>
void add(Registry& r, const char* op) {
  const std::pair<const char*, LayoutClass> names[] = {
      {"lanes", LayoutClass::lanes}, {"nhwc", LayoutClass::nhwc}, {"plain", LayoutClass::plain}};
  for (const auto& [name, layout] : names)
    for (DType dtype : {DType::f32, DType::bf16})
      r.add({.op = op,
             .name = name,
             .layout = layout,
             .dtype = dtype,
             .bit_exact = {.threads = true, .shard = true},
             .make = make<kPass>});
}

}  // namespace

void register_windowed(Registry& r) {
  add<Pass::max_forward>(r, "max_pool2d");
  add<Pass::avg_forward>(r, "avg_pool2d");
  add<Pass::max_backward>(r, "max_pool2d_grad");
  add<Pass::avg_backward>(r, "avg_pool2d_grad");
}

}  // namespace lockstep::pool2d
#endif
