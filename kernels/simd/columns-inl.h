// SPDX-License-Identifier: Apache-2.0
// Column sums of tiles and the two elementwise passes that normalisations consist of, with Highway. Included
// by sources that are compiled once per instruction set.
//
// No fma and a fixed place for every number in the sums, so all instruction sets give equal bits.
#if defined(LOCKSTEP_KERNELS_CORE_COLUMNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_KERNELS_CORE_COLUMNS_INL_H_
#undef LOCKSTEP_KERNELS_CORE_COLUMNS_INL_H_
#else
#define LOCKSTEP_KERNELS_CORE_COLUMNS_INL_H_
#endif

#include "kernels/simd/tile.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

// Vector v of a row; kPart: the row may end before or within it. T, D, Y here and below: float or bf16.
template <bool kPart, class T>
HWY_INLINE Vec load_row(const T* row, int v, int width) {
  const Floats d;
  if constexpr (kPart) {
    const int n = width - v * kVec;
    if (n < kVec) return n > 0 ? load_part(row + v * kVec, n) : hn::Zero(d);
  }
  return load_as(d, row + v * kVec);
}

// f(set, offset) for every row. Rows alternate between kSets sets of accumulators, which hides the latency
// of additions where a row is narrow.
template <int kSets, class F>
HWY_INLINE void for_rows(const Tile& t, F& f) {
  for (int64_t run = 0; run < t.runs; ++run) {
    int64_t at = t.offset + run * t.run_stride, r = 0;
    for (; r + kSets <= t.rows; r += kSets)
      for (int set = 0; set < kSets; ++set, at += t.row_stride) f(set, at);
    if (kSets > 1 && r < t.rows) f(0, at);
  }
}

template <int kSets, int kVecs>
struct Sums {
  Vec v[kSets][kVecs];
  HWY_INLINE Sums() {
    for (auto& set : v)
      for (Vec& x : set) x = hn::Zero(Floats());
  }
  HWY_INLINE Vec total(int i) const {
    if constexpr (kSets == 1) return v[0][i];
    return hn::Add(v[0][i], v[kSets - 1][i]);
  }
  HWY_INLINE void store(float* to) const {
    for (int i = 0; i < kVecs; ++i) hn::StoreU(total(i), Floats(), to + i * kVec);
  }
};

template <int kWidth, bool kPart, class T>
struct ColumnSum {
  static constexpr int kSets = kTileWidth / kWidth, kVecs = kWidth / kVec;
  const T* x;
  int width;
  Sums<kSets, kVecs> sum;
  HWY_INLINE void operator()(int set, int64_t at) {
    for (int i = 0; i < kVecs; ++i) sum.v[set][i] = hn::Add(sum.v[set][i], load_row<kPart>(x + at, i, width));
  }
};

template <int kWidth, bool kPart, class T>
struct ColumnSpread {
  static constexpr int kSets = kTileWidth / kWidth, kVecs = kWidth / kVec;
  const T* x;
  int width;
  Vec center[kVecs];
  Sums<kSets, kVecs> sum, square;  // of x - center
  HWY_INLINE void operator()(int set, int64_t at) {
    for (int i = 0; i < kVecs; ++i) {
      const Vec d = hn::Sub(load_row<kPart>(x + at, i, width), center[i]);
      sum.v[set][i] = hn::Add(sum.v[set][i], d);
      square.v[set][i] = hn::Add(square.v[set][i], hn::Mul(d, d));
    }
  }
};

// How a gradient gets back to the numbers that a norm leaves: as it is,
struct Straight {
  HWY_INLINE Straight from(int64_t /*column*/) const { return {}; }
  template <int kVecs, bool kPart>
  struct Columns {
    HWY_INLINE Columns(const Straight&, int) {}
    HWY_INLINE Vec operator()(int, Vec dy, Vec) const { return dy; }
  };
};
// or where (x - mean) * scale + shift, which normalize16 and normalize_rows made, is positive.
struct ThroughRelu {
  const float *scale, *shift;  // one a column
  HWY_INLINE ThroughRelu from(int64_t column) const { return {scale + column, shift + column}; }
  template <int kVecs, bool kPart>
  struct Columns {
    Vec scale[kVecs], shift[kVecs];
    HWY_INLINE Columns(const ThroughRelu& of, int width) {
      for (int i = 0; i < kVecs; ++i) {
        scale[i] = load_row<kPart>(of.scale, i, width);
        shift[i] = load_row<kPart>(of.shift, i, width);
      }
    }
    HWY_INLINE Vec operator()(int i, Vec dy, Vec away) const {
      const Vec z = hn::Add(hn::Mul(away, scale[i]), shift[i]);
      return hn::IfThenElseZero(hn::Gt(z, hn::Zero(Floats())), dy);
    }
  };
};

template <int kWidth, bool kPart, class T, class D, class Back>
struct ColumnProducts {
  static constexpr int kSets = kTileWidth / kWidth, kVecs = kWidth / kVec;
  const T* x;
  const D* dy;
  int width;
  typename Back::template Columns<kVecs, kPart> back;
  Vec center[kVecs];
  Sums<kSets, kVecs> sum, product;  // of dy and dy * (x - center)
  HWY_INLINE void operator()(int set, int64_t at) {
    for (int i = 0; i < kVecs; ++i) {
      const Vec d = hn::Sub(load_row<kPart>(x + at, i, width), center[i]);
      const Vec g = back(i, load_row<kPart>(dy + at, i, width), d);
      sum.v[set][i] = hn::Add(sum.v[set][i], g);
      product.v[set][i] = hn::Add(product.v[set][i], hn::Mul(g, d));
    }
  }
};

// Two passes; the second also measures how far the f32 mean is off, and corrects for it.
template <int kWidth, bool kPart, class T>
inline void moments(const T* x, const Tile& t, double* mean, double* m2) {
  using Spread = ColumnSpread<kWidth, kPart, T>;
  const Floats d;
  ColumnSum<kWidth, kPart, T> first{x, t.width, {}};
  for_rows<Spread::kSets>(t, first);
  const double count = static_cast<double>(t.count());
  const Vec inverse = hn::Set(d, static_cast<float>(1 / count));
  Spread second{x, t.width, {}, {}, {}};
  for (int i = 0; i < Spread::kVecs; ++i) second.center[i] = hn::Mul(first.sum.total(i), inverse);
  for_rows<Spread::kSets>(t, second);
  HWY_ALIGN float center[kWidth], sum[kWidth], square[kWidth];
  for (int i = 0; i < Spread::kVecs; ++i) hn::Store(second.center[i], d, center + i * kVec);
  second.sum.store(sum);
  second.square.store(square);
  for (int i = 0; i < t.width; ++i) {
    const double off = double{sum[i]} / count;
    mean[i] = double{center[i]} + off;
    const double spread = double{square[i]} - double{sum[i]} * off;
    m2[i] = spread < 0 ? 0 : spread;  // NaN stays
  }
}

template <int kWidth, bool kPart, class T, class D, class Back>
inline void products(const T* x, const D* dy, const Tile& t, const float* center, const Back& back,
                     double* sum, double* product) {
  using Products = ColumnProducts<kWidth, kPart, T, D, Back>;
  Products p{x, dy, t.width, {back, t.width}, {}, {}, {}};
  for (int i = 0; i < Products::kVecs; ++i) p.center[i] = load_row<kPart>(center, i, t.width);
  for_rows<Products::kSets>(t, p);
  HWY_ALIGN float s[kWidth], q[kWidth];
  p.sum.store(s);
  p.product.store(q);
  for (int i = 0; i < t.width; ++i) {
    sum[i] = double{s[i]};
    product[i] = double{q[i]};
  }
}

// Each column's mean and sum of squared deviations; at most kTileRows rows.
template <class T>
inline void tile_moments(const T* x, const Tile& t, double* mean, double* m2) {
  if (t.width == 16) return moments<16, false>(x, t, mean, m2);
  if (t.width < 16) return moments<16, true>(x, t, mean, m2);
  if (t.width == 32) return moments<32, false>(x, t, mean, m2);
  moments<32, true>(x, t, mean, m2);
}

// Each column's sum of dy and of dy * (x - center), with `back` before; at most kTileRows rows.
template <class T, class D, class Back = Straight>
inline void tile_products(const T* x, const D* dy, const Tile& t, const float* center, double* sum,
                          double* product, const Back& back = Back()) {
  if (t.width == 16) return products<16, false>(x, dy, t, center, back, sum, product);
  if (t.width < 16) return products<16, true>(x, dy, t, center, back, sum, product);
  if (t.width == 32) return products<32, false>(x, dy, t, center, back, sum, product);
  products<32, true>(x, dy, t, center, back, sum, product);
}

// Sums of dy and of dy * (x - center) over `length` contiguous numbers, as rows of 16 and a rest.
template <class T, class D>
inline void products_of_run(const T* x, const D* dy, int64_t length, const float* center, double& sum,
                            double& product) {
  double s[kTileWidth], q[kTileWidth];
  sum = product = 0;
  const auto add = [&](int width) {
    for (int j = 0; j < width; ++j) sum += s[j], product += q[j];
  };
  const Cut cut(1, length / kLanes);
  for (int64_t i = 0; i < cut.pieces(); ++i) {
    const auto p = cut.piece(i);
    if (p.rows == 0) continue;
    tile_products(x, dy, {p.row * kLanes, 1, 0, p.rows, kLanes, kLanes}, center, s, q);
    add(kLanes);
  }
  if (const int rest = static_cast<int>(length % kLanes)) {
    tile_products(x, dy, {length - rest, 1, 0, 1, 0, rest}, center, s, q);
    add(rest);
  }
}

// What normalize16 and normalize_rows do to numbers before they store them: after(numbers, where they stand
// behind x, how many of them there are at most).
struct AsTheyAre {
  HWY_INLINE Vec operator()(Vec v, int64_t, int64_t) const { return v; }
};

// `length` numbers, column of element i: i % 16.
template <class T, class Y, class F = AsTheyAre>
inline void normalize16(const T* x, Y* y, int64_t length, const Normalize& c, const F& after = F()) {
  const Floats d;
  constexpr int kVecs = kLanes / kVec;
  Vec mean[kVecs], scale[kVecs], shift[kVecs];
  for (int v = 0; v < kVecs; ++v) {
    mean[v] = hn::LoadU(d, c.mean + v * kVec);
    scale[v] = hn::LoadU(d, c.scale + v * kVec);
    shift[v] = hn::LoadU(d, c.shift + v * kVec);
  }
  int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes)
    for (int v = 0; v < kVecs; ++v) {
      const int64_t at = i + v * kVec;
      store(after(hn::Add(hn::Mul(hn::Sub(load(x + at), mean[v]), scale[v]), shift[v]), at, kVec), y + at);
    }
  for (int v = 0; i < length; i += kVec, ++v)
    store(
        after(hn::Add(hn::Mul(hn::Sub(load(x + i, length - i), mean[v]), scale[v]), shift[v]), i, length - i),
        y + i, length - i);
}

// dy: with `back` before.
template <class T, class D, class Back = Straight>
inline void normalize_grad16(const T* x, const D* dy, T* dx, int64_t length, const NormalizeGrad& c,
                             const Back& back = Back()) {
  const Floats d;
  constexpr int kVecs = kLanes / kVec;
  const typename Back::template Columns<kVecs, false> through(back, kLanes);
  Vec mean[kVecs], scale[kVecs], shift[kVecs], slope[kVecs];
  for (int v = 0; v < kVecs; ++v) {
    mean[v] = hn::LoadU(d, c.mean + v * kVec);
    scale[v] = hn::LoadU(d, c.scale + v * kVec);
    shift[v] = hn::LoadU(d, c.shift + v * kVec);
    slope[v] = hn::LoadU(d, c.slope + v * kVec);
  }
  int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes)
    for (int v = 0; v < kVecs; ++v) {
      const int64_t at = i + v * kVec;
      const Vec away = hn::Sub(load(x + at), mean[v]);
      const Vec g = hn::Sub(hn::Mul(through(v, load(dy + at), away), scale[v]), shift[v]);
      store(hn::Sub(g, hn::Mul(away, slope[v])), dx + at);
    }
  for (int v = 0; i < length; i += kVec, ++v) {
    const int64_t left = length - i;
    const Vec away = hn::Sub(load(x + i, left), mean[v]);
    const Vec g = hn::Sub(hn::Mul(through(v, load(dy + i, left), away), scale[v]), shift[v]);
    store(hn::Sub(g, hn::Mul(away, slope[v])), dx + i, left);
  }
}

// `rows` rows of `width` columns, one after another.
template <class T, class Y, class F = AsTheyAre>
inline void normalize_rows(const T* x, Y* y, int64_t rows, int64_t width, const Normalize& c,
                           const F& after = F()) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < width; i += kVec) {
      const int64_t at = r * width + i, left = width - i;
      const Vec n = hn::Mul(hn::Sub(load(x + at, left), load(c.mean + i, left)), load(c.scale + i, left));
      store(after(hn::Add(n, load(c.shift + i, left)), at, left), y + at, left);
    }
}

// dy: with `back` before.
template <class T, class D, class Back = Straight>
inline void normalize_grad_rows(const T* x, const D* dy, T* dx, int64_t rows, int64_t width,
                                const NormalizeGrad& c, const Back& back = Back()) {
  for (int64_t r = 0; r < rows; ++r, x += width, dy += width, dx += width)
    for (int64_t i = 0; i < width; i += kVec) {
      const int64_t left = width - i;
      const Vec away = hn::Sub(load(x + i, left), load(c.mean + i, left));
      const typename Back::template Columns<1, true> through(back.from(i), static_cast<int>(left));
      const Vec dz = through(0, load(dy + i, left), away);
      const Vec g = hn::Sub(hn::Mul(dz, load(c.scale + i, left)), load(c.shift + i, left));
      store(hn::Sub(g, hn::Mul(away, load(c.slope + i, left))), dx + i, left);
    }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
