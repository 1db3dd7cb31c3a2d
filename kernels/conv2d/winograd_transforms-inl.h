// SPDX-License-Identifier: Apache-2.0
// The transforms of Winograd's minimal filtering F(4, 3) and F(3, 4), which share their points 0, +-5/8,
// +-3/2 and infinity (S. Winograd, Arithmetic Complexity of Computations; Lavin, Gray: arXiv 1509.09308).
// These points round three times less than the usual 0, +-1, +-2, infinity (on points: Barabasz et al., arXiv
// 1803.10986). Included by sources that are compiled once per instruction set.
//
// For polynomials d of 6, f of R and their correlation y of M = 7 - R terms:
//   y = output(data(d) * filter(f)), in place of M * R multiplications 6.
#if defined(LOCKSTEP_CONV2D_WINOGRAD_TRANSFORMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_CONV2D_WINOGRAD_TRANSFORMS_INL
#undef LOCKSTEP_CONV2D_WINOGRAD_TRANSFORMS_INL
#else
#define LOCKSTEP_CONV2D_WINOGRAD_TRANSFORMS_INL
#endif

#include "kernels/simd/register_tile-inl.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

inline constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;

HWY_INLINE Vec constant(float f) { return hn::Set(Floats(), f); }

// Row p of the matrix: the coefficients of the polynomial that is zero at all finite points but p.
struct Data {
  HWY_INLINE void operator()(const Vec* x, Vec* y) const {
    const Vec a = constant(kA), b = constant(kB), a2 = constant(kA2), b2 = constant(kB2);
    const Vec sum = constant(kA2 + kB2), product = constant(kA2 * kB2);
    const Vec even_a = hn::NegMulAdd(b2, x[2], x[4]), odd_a = hn::NegMulAdd(b2, x[1], x[3]);
    const Vec even_b = hn::NegMulAdd(a2, x[2], x[4]), odd_b = hn::NegMulAdd(a2, x[1], x[3]);
    y[0] = hn::MulAdd(product, x[0], hn::NegMulAdd(sum, x[2], x[4]));
    y[1] = hn::MulAdd(a, odd_a, even_a);
    y[2] = hn::NegMulAdd(a, odd_a, even_a);
    y[3] = hn::MulAdd(b, odd_b, even_b);
    y[4] = hn::NegMulAdd(b, odd_b, even_b);
    y[5] = hn::MulAdd(product, x[1], hn::NegMulAdd(sum, x[3], x[5]));
  }
};

// Values of the filter at the points, over Data's polynomial there.
template <int R>
struct Filter {
  static_assert(R == 3 || R == 4);
  HWY_INLINE void operator()(const Vec* x, Vec* y) const {
    constexpr float a = 1 / (2 * kA2 * (kA2 - kB2)), b = 1 / (2 * kB2 * (kB2 - kA2));
    const Vec even_a = hn::MulAdd(constant(a * kA2), x[2], hn::Mul(constant(a), x[0]));
    const Vec even_b = hn::MulAdd(constant(b * kB2), x[2], hn::Mul(constant(b), x[0]));
    Vec odd_a = hn::Mul(constant(a * kA), x[1]), odd_b = hn::Mul(constant(b * kB), x[1]);
    if constexpr (R == 4) {
      odd_a = hn::MulAdd(constant(a * kA2 * kA), x[3], odd_a);
      odd_b = hn::MulAdd(constant(b * kB2 * kB), x[3], odd_b);
    }
    y[0] = hn::Mul(constant(1 / (kA2 * kB2)), x[0]);
    y[1] = hn::Add(even_a, odd_a);
    y[2] = hn::Sub(even_a, odd_a);
    y[3] = hn::Add(even_b, odd_b);
    y[4] = hn::Sub(even_b, odd_b);
    y[5] = x[R - 1];
  }
};

// Row i: the points to the power i.
template <int M>
struct Output {
  static_assert(M == 3 || M == 4);
  HWY_INLINE void operator()(const Vec* x, Vec* y) const {
    const Vec even_a = hn::Add(x[1], x[2]), odd_a = hn::Sub(x[1], x[2]);
    const Vec even_b = hn::Add(x[3], x[4]), odd_b = hn::Sub(x[3], x[4]);
    y[0] = hn::Add(hn::Add(x[0], even_a), even_b);
    y[1] = hn::MulAdd(constant(kA), odd_a, hn::Mul(constant(kB), odd_b));
    y[2] = hn::MulAdd(constant(kA2), even_a, hn::Mul(constant(kB2), even_b));
    if constexpr (M == 4)
      y[3] = hn::MulAdd(constant(kA2 * kA), odd_a, hn::MulAdd(constant(kB2 * kB), odd_b, x[5]));
    else
      y[2] = hn::Add(y[2], x[5]);
  }
};

// A transform of a square's columns, then of its rows: store(i, j, value) for O x O values from load(i, j) of
// I x I.
template <int I, int O, class Transform, class Load, class Store>
HWY_INLINE void transform_square(const Transform& transform, const Load& load, const Store& store) {
  Vec columns[O][I];
  LOCKSTEP_UNROLL for (int j = 0; j < I; ++j) {
    Vec x[I], y[O];
    LOCKSTEP_UNROLL for (int i = 0; i < I; ++i) x[i] = load(i, j);
    transform(x, y);
    LOCKSTEP_UNROLL for (int i = 0; i < O; ++i) columns[i][j] = y[i];
  }
  LOCKSTEP_UNROLL for (int i = 0; i < O; ++i) {
    Vec y[O];
    transform(columns[i], y);
    LOCKSTEP_UNROLL for (int j = 0; j < O; ++j) store(i, j, y[j]);
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
