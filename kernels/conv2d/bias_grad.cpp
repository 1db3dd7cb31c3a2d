// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/bias_grad.h"

#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/bias_grad.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include <algorithm>

#include "kernels/core/dtypes.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

// Of channels [first, last) of `channels`.
template <class T>
void sum_pixels(const T* dy, int64_t rows, int64_t pixels, int64_t channels, int64_t first, int64_t last,
                float* db) {
  for (int64_t c = first; c < last; c += kVec) {
    const int64_t left = last - c;
    Vec sum = hn::Zero(Floats());
    for (int64_t r = 0; r < rows; ++r) {
      Vec of_row = hn::Zero(Floats());
      for (int64_t i = 0; i < pixels; ++i)
        of_row = hn::Add(of_row, load(dy + (r * pixels + i) * channels + c, left));
      sum = hn::Add(sum, of_row);
    }
    store(sum, db + c, left);
  }
}

void bias_sums(const View& dy, int64_t rows, int64_t pixels, int64_t channels, int64_t first, int64_t last,
               float* db) {
  typed(dy, [&](auto* from) { sum_pixels(from, rows, pixels, channels, first, last, db); });
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(bias_sums);

void bias_grad_nhwc(const View& dy, int64_t rows, int64_t pixels, int64_t channels, float* db, int threads) {
  constexpr int64_t kLine = 16;  // floats of a cache line, so that no two threads write to one
  parallel_ranges((channels + kLine - 1) / kLine, threads, 1, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(bias_sums)
    (dy, rows, pixels, channels, first * kLine, std::min(last * kLine, channels), db);
  });
}

}  // namespace lockstep
#endif
