// SPDX-License-Identifier: Apache-2.0
// Every layout is matrices whose columns have a coefficient each, [rows, width]: pixels by channels (nhwc),
// pixels by 16 samples (lanes), and in plain a channel's pixels, one column.
//
// No fma and sums in a fixed order, so all instruction sets give equal bits.
#include <algorithm>

#include "kernels/core/dtypes.h"
#include "kernels/core/kernel.h"
#include "kernels/core/parallel.h"
#include "kernels/scale_shift/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/scale_shift/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/simd/columns-inl.h"

#ifndef LOCKSTEP_SCALE_SHIFT_ONCE
#define LOCKSTEP_SCALE_SHIFT_ONCE
namespace lockstep::scale_shift {

struct Geometry {
  int64_t matrices, rows, width;
  explicit Geometry(const TensorSpec& x) : rows(x.shape.elements_from(2)) {
    width = x.layout == Layout::lanes ? kLanes : x.layout == Layout::nhwc ? x.shape[1] : 1;
    matrices = x.stored_elements() / std::max<int64_t>(1, elements());
  }
  int64_t elements() const { return rows * width; }
};

// T: float or bf16, of all tensors.
template <class T>
struct Forward {
  const T *x, *scale, *shift;  // scale may be null
  T* y;
  explicit Forward(const KernelArgs& args)
      : x(args.in[0].as<T>()),
        scale(has_scale(args) ? args.in[1].as<T>() : nullptr),
        shift(args.in.back().as<T>()),
        y(args.out[0].as<T>()) {}
};
template <class T>
struct Backward {
  const T *dy, *x = nullptr, *scale = nullptr;
  T *dshift, *dx = nullptr, *dscale = nullptr;  // all but dshift null where scale is
  explicit Backward(const KernelArgs& args) : dy(args.in[0].as<T>()), dshift(args.out[0].as<T>()) {
    if (!has_scale(args)) return;
    x = args.in[1].as<T>(), scale = args.in[2].as<T>();
    dx = args.out[1].as<T>(), dscale = args.out[2].as<T>();
  }
};

}  // namespace lockstep::scale_shift
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::scale_shift {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using namespace lockstep::HWY_NAMESPACE;

// y = x * (1 + scale) + shift, column by column; nothing where scale, shift is null.
template <class T>
void apply(const Geometry& g, int64_t matrix, const T* x, const T* scale, const T* shift, T* y) {
  const Floats d;
  const Vec one = hn::Set(d, 1.0f);
  const auto of = [&](Vec v, Vec by, Vec plus) HWY_ATTR {
    if (scale) v = hn::Mul(v, hn::Add(one, by));
    return shift ? hn::Add(v, plus) : v;
  };
  const int64_t at = matrix * g.elements(), column = matrix * g.width;
  if (g.width == 1) {
    const Vec by = hn::Set(d, scale ? float(scale[column]) : 0);
    const Vec plus = hn::Set(d, shift ? float(shift[column]) : 0);
    for (int64_t i = 0; i < g.rows; i += kVec)
      store(of(load(x + at + i, g.rows - i), by, plus), y + at + i, g.rows - i);
    return;
  }
  for (int64_t r = 0; r < g.rows; ++r)
    for (int64_t i = 0; i < g.width; i += kVec) {
      const int64_t left = g.width - i, k = at + r * g.width + i;
      const Vec by = scale ? load(scale + column + i, left) : one;
      const Vec plus = shift ? load(shift + column + i, left) : one;
      store(of(load(x + k, left), by, plus), y + k, left);
    }
}

// Each column's sum of dy (dshift) and of dy * x (dscale).
template <class T>
void add_up(const Geometry& g, int64_t matrix, const Backward<T>& a) {
  HWY_ALIGN static constexpr float kOrigin[kTileWidth] = {};
  const int64_t at = matrix * g.elements(), column = matrix * g.width;
  const T* x = a.x ? a.x : a.dy;
  if (g.width == 1) {
    double sum, product;
    products_of_run(x + at, a.dy + at, g.rows, kOrigin, sum, product);
    a.dshift[column] = T(static_cast<float>(sum));
    if (a.dscale) a.dscale[column] = T(static_cast<float>(product));
    return;
  }
  const Cut cut(1, g.rows);
  for (int64_t first = 0; first < g.width; first += kTileWidth) {
    const int width = static_cast<int>(std::min<int64_t>(kTileWidth, g.width - first));
    double sum[kTileWidth] = {}, product[kTileWidth] = {}, s[kTileWidth], q[kTileWidth];
    for (int64_t i = 0; i < cut.pieces(); ++i) {
      const auto p = cut.piece(i);
      tile_products(x, a.dy, {at + p.row * g.width + first, 1, 0, p.rows, g.width, width}, kOrigin, s, q);
      for (int j = 0; j < width; ++j) sum[j] += s[j], product[j] += q[j];
    }
    for (int j = 0; j < width; ++j) {
      a.dshift[column + first + j] = T(static_cast<float>(sum[j]));
      if (a.dscale) a.dscale[column + first + j] = T(static_cast<float>(product[j]));
    }
  }
}

template <class T>
void forward_of(const Geometry& g, const Forward<T>& a, int64_t begin, int64_t end) {
  for (int64_t m = begin; m < end; ++m) apply(g, m, a.x, a.scale, a.shift, a.y);
}

// dx last: it may be dy's buffer.
template <class T>
void backward_of(const Geometry& g, const Backward<T>& a, int64_t begin, int64_t end) {
  for (int64_t m = begin; m < end; ++m) {
    add_up(g, m, a);
    if (a.scale) apply<T>(g, m, a.dy, a.scale, nullptr, a.dx);
  }
}

void forward(const Geometry& g, const KernelArgs& args, int64_t begin, int64_t end) {
  if (args.in[0].spec.dtype == DType::bf16)
    forward_of(g, Forward<bf16>(args), begin, end);
  else
    forward_of(g, Forward<float>(args), begin, end);
}

void backward(const Geometry& g, const KernelArgs& args, int64_t begin, int64_t end) {
  if (args.in[0].spec.dtype == DType::bf16)
    backward_of(g, Backward<bf16>(args), begin, end);
  else
    backward_of(g, Backward<float>(args), begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::scale_shift
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::scale_shift {
namespace {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

template <class F>
void by_matrix(F f, const KernelArgs& args, int threads) {
  const Geometry g(args.in[0].spec);
  parallel_ranges(g.matrices, threads, kGrain / std::max<int64_t>(1, g.elements()),
                  [&](int64_t begin, int64_t end) { f(g, args, begin, end); });
}

void run_forward(const NoParams&, const KernelArgs& args, int threads) {
  by_matrix(HWY_DYNAMIC_DISPATCH(forward), args, threads);
}

void run_backward(const NoParams&, const KernelArgs& args, int threads) {
  by_matrix(HWY_DYNAMIC_DISPATCH(backward), args, threads);
}

}  // namespace

void register_highway(Registry& r) {
  const auto add = [&](const char* op, auto f) {
    add_of_one_dtype(r, {.op = op,
                         .name = "highway",
                         .layout = LayoutClass::any,
                         .bit_exact = {.threads = true, .shard = true},
                         .make = stateless<NoParams>(f)});
  };
  add("scale_shift", run_forward);
  add("scale_shift_grad", run_backward);
}

}  // namespace lockstep::scale_shift
#endif
