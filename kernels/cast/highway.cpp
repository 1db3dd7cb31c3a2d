#include "kernels/cast/cast.h"
#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cast/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/core/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

template <class From, class To>
HWY_INLINE void cast_range(const From* from, To* to, int64_t n) {
  for (int64_t i = 0; i < n; i += kVec) store(load(from + i, n - i), to + i, n - i);
}

void round_range(const float* from, bf16* to, int64_t n) { cast_range(from, to, n); }
void widen_range(const bf16* from, float* to, int64_t n) { cast_range(from, to, n); }

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(round_range);
HWY_EXPORT(widen_range);

namespace cast {
namespace {

constexpr int64_t kGrain = 32768 / kLanes;  // groups of 16 numbers that are worth a thread

void run(const NoParams&, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &y = args.out[0];
  const int64_t n = x.spec.stored_elements();
  parallel_ranges((n + kLanes - 1) / kLanes, threads, kGrain, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kLanes, count = std::min(last * kLanes, n) - begin;
    if (x.spec.dtype == DType::f32)
      HWY_DYNAMIC_DISPATCH(round_range)(x.as<float>() + begin, y.as<bf16>() + begin, count);
    else
      HWY_DYNAMIC_DISPATCH(widen_range)(x.as<bf16>() + begin, y.as<float>() + begin, count);
  });
}

}  // namespace

void register_highway(Registry& r) {
  r.add({.op = "cast",
         .name = "highway",
         .layout = LayoutClass::any,
         .dtype = DType::bf16,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return served(q) ? stateless<NoParams>(run)(q) : nullptr;
         }});
}

}  // namespace cast
}  // namespace lockstep
#endif
