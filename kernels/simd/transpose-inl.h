// SPDX-License-Identifier: Apache-2.0
// Transposition with Highway, for whoever lays samples or channels side by side. Included by sources that
// are compiled once for each instruction set (foreach_target.h), hence the toggling guard.
#if defined(LOCKSTEP_TRANSPOSE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LOCKSTEP_TRANSPOSE_INL_H
#undef LOCKSTEP_TRANSPOSE_INL_H
#else
#define LOCKSTEP_TRANSPOSE_INL_H
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep {
namespace HWY_NAMESPACE {

using Float4 = hwy::HWY_NAMESPACE::CappedTag<float, 4>;

// Rows of float or bf16 as a source.
template <class T>
struct Rows {
  const T* from;
  int64_t stride;
  HWY_INLINE float one(int64_t row, int64_t column) const { return float(from[row * stride + column]); }
  HWY_INLINE auto four(int64_t row, int64_t column) const {
    return load_as(Float4(), from + row * stride + column);
  }
};

#if HWY_TARGET != HWY_SCALAR  // where vectors have one lane: nothing to interleave

// Columns col .. col + 3 of the rows row + i, row + 4 + i, ...: one row in each 128-bit block of D.
template <class D, class Source>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_every_4th_row(D d, const Source& source, int64_t row,
                                                         int64_t col) {
  namespace hn = hwy::HWY_NAMESPACE;
  if constexpr (hn::MaxLanes(D()) == 4) {
    return source.four(row, col);
  } else {
    const hn::Half<D> half;
    const auto lower = load_every_4th_row(half, source, row, col);
    const auto rows_of_half = static_cast<int64_t>(hn::MaxLanes(half));
    return hn::Combine(d, load_every_4th_row(half, source, row + rows_of_half, col), lower);
  }
}

// to[(col + k) * stride + row + j] = source(row + j, col + k) for k < 4, j < Lanes(D).
template <class D, class Source>
HWY_INLINE void transpose_4_columns(D d, const Source& source, int64_t row, int64_t col, float* to,
                                    int64_t stride) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Repartition<double, D> pairs;
  const auto v0 = load_every_4th_row(d, source, row, col), v1 = load_every_4th_row(d, source, row + 1, col);
  const auto v2 = load_every_4th_row(d, source, row + 2, col),
             v3 = load_every_4th_row(d, source, row + 3, col);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, v0, v1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, v2, v3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, v0, v1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, v2, v3));
  float* o = to + col * stride + row;
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, o);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, o + stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, o + 2 * stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, o + 3 * stride);
}

#endif

// to[col * stride + row] = source(row, col). A Source has one(row, col), a float, and four(row, col), those
// of columns col .. col + 3 as a vector.
template <class Source>
void transpose(const Source& source, int64_t rows, int64_t cols, float* to, int64_t stride) {
  int64_t row = 0;
#if HWY_TARGET != HWY_SCALAR
  namespace hn = hwy::HWY_NAMESPACE;
  const int64_t whole = cols / 4 * 4;
  const auto bands = [&](auto d) {
    const auto high = static_cast<int64_t>(hn::MaxLanes(d));
    for (; row + high <= rows; row += high) {
      for (int64_t col = 0; col < whole; col += 4) transpose_4_columns(d, source, row, col, to, stride);
      for (int64_t col = whole; col < cols; ++col)
        for (int64_t j = 0; j < high; ++j) to[col * stride + row + j] = source.one(row + j, col);
    }
  };
  bands(hn::CappedTag<float, 16>());
  bands(hn::CappedTag<float, 8>());
  bands(Float4());
#endif
  for (; row < rows; ++row)
    for (int64_t col = 0; col < cols; ++col) to[col * stride + row] = source.one(row, col);
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep
HWY_AFTER_NAMESPACE();

#endif
