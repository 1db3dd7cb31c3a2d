// SPDX-License-Identifier: Apache-2.0
// The transforms of Winograd's minimal filtering F(4, 5) and F(5, 4), which share their points 0, +-1/2, +-1, +-2 and infinity
// (S. Winograd, Arithmetic Complexity of Computations; Lavin, Gray: arXiv 1509.09308; points of small error: Barabasz et al.,
// arXiv 1803.10986). Included by sources that are compiled once per instruction set.
//
// For polynomials d of 8, f of R and their correlation y of M = 9 - R terms:
//   y = output(data(d) * filter(f)), in place of M * R multiplications 8.
// (t^2 - 1/4)(t^2 - 1)(t^2 - 4) = t^6 - 5.25 t^4 + 5.25 t^2 - 1. Without one of the factors it is t^4 - sum t^2 + product. The
// values at a and -a share the even and the odd part of their sum.
#if defined(LOCKSTEP_CONV2D_LANES_WINOGRAD_TRANSFORMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_CONV2D_LANES_WINOGRAD_TRANSFORMS_INL
#undef LOCKSTEP_CONV2D_LANES_WINOGRAD_TRANSFORMS_INL
#else
#define LOCKSTEP_CONV2D_LANES_WINOGRAD_TRANSFORMS_INL
#endif

#include "kernels/simd/register_tile-inl.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE::lanes_winograd_transforms {

inline constexpr int kPairs = 3;  // of points: a and -a
inline constexpr double kAt[kPairs] = {0.5, 1, 2}, kSum[kPairs] = {5, 4.25, 1.25},
                        kProduct[kPairs] = {4, 1, 0.25};
inline constexpr double kNorm[kPairs] = {1.40625, -4.5,
                                         90};  // Data's polynomial at a, that of both signs alike
constexpr double power(double a, int i) { return i == 0 ? 1 : a * power(a, i - 1); }
HWY_INLINE Vec constant(double f) { return hn::Set(Floats(), static_cast<float>(f)); }
// Sums over a batch are kept and transformed in double: transforms cancel, and what is left of a sum's rounding would tell
// in how many parts it was made, on how many ranks.
using Doubles = hn::CappedTag<double, (kVec + 1) / 2>;
inline constexpr int kDoubles = static_cast<int>(hn::MaxLanes(Doubles()));

// Row p of the matrix: the coefficients of the polynomial that is zero at all finite points but p.
struct Data {
  static constexpr int in = 8, out = 8;
  static HWY_INLINE void run(const Vec* x, Vec* y) {
    y[0] = hn::MulAdd(constant(5.25), hn::Sub(x[2], x[4]), hn::Sub(x[6], x[0]));
    y[7] = hn::MulAdd(constant(5.25), hn::Sub(x[3], x[5]), hn::Sub(x[7], x[1]));
    LOCKSTEP_UNROLL for (int k = 0; k < kPairs; ++k) {
      const Vec sum = constant(kSum[k]), product = constant(kProduct[k]), a = constant(kAt[k]);
      const Vec even = hn::MulAdd(product, x[2], hn::NegMulAdd(sum, x[4], x[6]));
      const Vec odd = hn::MulAdd(product, x[1], hn::NegMulAdd(sum, x[3], x[5]));
      y[1 + 2 * k] = hn::MulAdd(a, odd, even);
      y[2 + 2 * k] = hn::NegMulAdd(a, odd, even);
    }
  }
};

struct DataTransposed {
  static constexpr int in = 8, out = 8;
  static HWY_INLINE void run(const Vec* y, Vec* x) {
    const Vec c = constant(5.25);
    x[0] = hn::Neg(y[0]), x[2] = hn::Mul(c, y[0]), x[4] = hn::Neg(x[2]), x[6] = y[0];
    x[1] = hn::Neg(y[7]), x[3] = hn::Mul(c, y[7]), x[5] = hn::Neg(x[3]), x[7] = y[7];
    LOCKSTEP_UNROLL for (int k = 0; k < kPairs; ++k) {
      const Vec sum = constant(kSum[k]), product = constant(kProduct[k]);
      const Vec even = hn::Add(y[1 + 2 * k], y[2 + 2 * k]);
      const Vec odd = hn::Mul(constant(kAt[k]), hn::Sub(y[1 + 2 * k], y[2 + 2 * k]));
      x[2] = hn::MulAdd(product, even, x[2]), x[4] = hn::NegMulAdd(sum, even, x[4]),
      x[6] = hn::Add(x[6], even);
      x[1] = hn::MulAdd(product, odd, x[1]), x[3] = hn::NegMulAdd(sum, odd, x[3]), x[5] = hn::Add(x[5], odd);
    }
  }
};

// Of a polynomial of so many terms the values at the points; of a filter over that of Data's polynomial there.
template <int Terms, bool Filter>
struct Values {
  static constexpr int in = Terms, out = 8;
  static constexpr double at(int k, int i) { return power(kAt[k], i) / (Filter ? kNorm[k] : 1); }
  static HWY_INLINE void run(const Vec* x, Vec* y) {
    y[0] = Filter ? hn::Neg(x[0]) : x[0];
    y[7] = x[in - 1];
    LOCKSTEP_UNROLL for (int k = 0; k < kPairs; ++k) {
      Vec part[2] = {hn::Mul(constant(at(k, 0)), x[0]), hn::Mul(constant(at(k, 1)), x[1])};  // even, odd
      LOCKSTEP_UNROLL for (int i = 2; i < in; ++i) part[i % 2] =
          hn::MulAdd(constant(at(k, i)), x[i], part[i % 2]);
      y[1 + 2 * k] = hn::Add(part[0], part[1]);
      y[2 + 2 * k] = hn::Sub(part[0], part[1]);
    }
  }
};

template <int Terms, bool Filter>
struct ValuesTransposed {
  static constexpr int in = 8, out = Terms;
  template <class V>
  static HWY_INLINE void run(const V* y, V* x) {
    const hn::DFromV<V> d;
    LOCKSTEP_UNROLL for (int i = 0; i < out; ++i) {
      x[i] = i == 0 ? (Filter ? hn::Neg(y[0]) : y[0]) : i == out - 1 ? y[7] : hn::Zero(d);
    }
    LOCKSTEP_UNROLL for (int k = 0; k < kPairs; ++k) {
      const V even = hn::Add(y[1 + 2 * k], y[2 + 2 * k]), odd = hn::Sub(y[1 + 2 * k], y[2 + 2 * k]);
      LOCKSTEP_UNROLL for (int i = 0; i < out; ++i) {
        const auto factor = static_cast<hn::TFromD<hn::DFromV<V>>>(Values<Terms, Filter>::at(k, i));
        x[i] = hn::MulAdd(hn::Set(d, factor), i % 2 ? odd : even, x[i]);
      }
    }
  }
};

using OutputGradient = Values<4, false>;           // 4 -> 8
using Output = ValuesTransposed<4, false>;         // 8 -> 4
using Filter = Values<5, true>;                    // 5 -> 8
using FilterGradient = ValuesTransposed<5, true>;  // 8 -> 5
// Where the point 1 stands: it is in each output once, and the value of a gradient there is the sum of its terms.
inline constexpr int64_t kOne = 3;

// A load that GCC does not repeat at each use.
HWY_INLINE Vec load_once(const float* p) {
  Vec v = load(p);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSE2
  asm("" : "+v"(v.raw));
#endif
  return v;
}

// A transform of what lies `step` floats apart.
template <class T>
HWY_INLINE void transform(const float* from, int64_t step, Vec* y) {
  Vec x[T::in];
  LOCKSTEP_UNROLL for (int i = 0; i < T::in; ++i) x[i] = load_once(from + i * step);
  T::run(x, y);
}
template <class T>
HWY_INLINE void transform(const float* from, int64_t step, float* to, int64_t to_step) {
  Vec y[T::out];
  transform<T>(from, step, y);
  LOCKSTEP_UNROLL for (int i = 0; i < T::out; ++i) store(y[i], to + i * to_step);
}

// The same of sums: kDoubles of them at once.
template <class T>
HWY_INLINE void transform(const double* from, int64_t step, double* to, int64_t to_step) {
  hn::Vec<Doubles> x[T::in], y[T::out];
  LOCKSTEP_UNROLL for (int i = 0; i < T::in; ++i) x[i] = hn::LoadU(Doubles(), from + i * step);
  T::run(x, y);
  LOCKSTEP_UNROLL for (int i = 0; i < T::out; ++i) hn::StoreU(y[i], Doubles(), to + i * to_step);
}

// The sums of four vectors' lanes.
HWY_INLINE void sum_lanes(const Vec* v, float* to) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 4; ++i) to[i] = hn::GetLane(v[i]);
#else
  const Floats d;
  const hn::Repartition<double, Floats> pairs;
  const auto halves = [&](Vec a, Vec b) {
    return hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  };
  const auto low = halves(v[0], v[1]), high = halves(v[2], v[3]);
  HWY_ALIGN float parts[kVec];  // of each four lanes the four sums
  store(hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, low, high)),
                hn::BitCast(d, hn::InterleaveUpper(pairs, low, high))),
        parts);
  LOCKSTEP_UNROLL for (int i = 0; i < 4; ++i) {
    to[i] = parts[i];
    LOCKSTEP_UNROLL for (int l = 4; l < kVec; l += 4) to[i] += parts[l + i];
  }
#endif
}

}  // namespace lockstep::HWY_NAMESPACE::lanes_winograd_transforms
HWY_AFTER_NAMESPACE();

#endif
