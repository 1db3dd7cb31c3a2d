// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/geglu/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/core/dtypes.h"
#include "kernels/core/parallel.h"
#include "kernels/elementwise/math-inl.h"
#include "kernels/geglu/geglu.h"
#include "kernels/geglu/kernels.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::geglu {
namespace HWY_NAMESPACE {

namespace simd = lockstep::HWY_NAMESPACE;
namespace math = lockstep::elementwise::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;

// Rows [begin, end) of c columns of y.
void forward(const KernelArgs& args, int64_t c, int64_t begin, int64_t end) {
  const simd::Floats d;
  typed(args.in[0], [&](auto* x) {
    auto* y = static_cast<decltype(x)>(args.out[0].data);
    for (int64_t row = begin; row < end; ++row) {
      const auto *value = x + row * 2 * c, *gate = value + c;
      for (int64_t i = 0; i < c; i += simd::kVec) {
        const auto g = simd::load(gate + i, c - i);
        const auto by = hn::Mul(g, math::normal(d, g).cdf);
        simd::store(hn::Mul(simd::load(value + i, c - i), by), y + row * c + i, c - i);
      }
    }
  });
}

void backward(const KernelArgs& args, int64_t c, int64_t begin, int64_t end) {
  const simd::Floats d;
  typed(args.in[0], [&](auto* x) {
    using Pointer = decltype(x);
    auto *dy = static_cast<Pointer>(args.in[1].data), *dx = static_cast<Pointer>(args.out[0].data);
    for (int64_t row = begin; row < end; ++row) {
      const auto *value = x + row * 2 * c, *gate = value + c;
      auto *dvalue = dx + row * 2 * c, *dgate = dvalue + c;
      for (int64_t i = 0; i < c; i += simd::kVec) {
        const int64_t left = c - i;
        const auto g = simd::load(gate + i, left), v = simd::load(value + i, left);
        const auto dyi = simd::load(dy + row * c + i, left);
        const auto n = math::normal(d, g);
        simd::store(hn::Mul(dyi, hn::Mul(g, n.cdf)), dvalue + i, left);
        simd::store(hn::Mul(hn::Mul(dyi, v), math::gelu_slope(d, g, n)), dgate + i, left);
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::geglu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::geglu {
namespace {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

constexpr int64_t kGrain = 8192;  // gates that are worth a thread

template <class F>
void by_rows(F f, const View& y, const KernelArgs& args, int threads) {
  const int64_t c = columns(y);
  parallel_ranges(rows(y), threads, divide_up(kGrain, std::max<int64_t>(1, c)),
                  [&](int64_t begin, int64_t end) { f(args, c, begin, end); });
}

void run_forward(const NoParams&, const KernelArgs& args, int threads) {
  by_rows(HWY_DYNAMIC_DISPATCH(forward), args.out[0], args, threads);
}
void run_backward(const NoParams&, const KernelArgs& args, int threads) {
  by_rows(HWY_DYNAMIC_DISPATCH(backward), args.in[1], args, threads);
}

}  // namespace

void register_highway(Registry& r) {
  const auto add = [&](const char* op, auto f) {
    add_of_one_dtype(r, {.op = op,
                         .name = "highway",
                         .layout = LayoutClass::plain,
                         .bit_exact = {.threads = true, .shard = true},
                         .make = stateless<NoParams>(f)});
  };
  add("geglu", run_forward);
  add("geglu_grad", run_backward);
}

}  // namespace lockstep::geglu
#endif
