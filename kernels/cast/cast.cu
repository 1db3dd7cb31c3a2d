// SPDX-License-Identifier: Apache-2.0
// Eight numbers a thread: 16 bytes of bf16, twice 16 of f32.
#include "kernels/cast/cast.h"

#include "kernels/gpu/device_code.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256, kEach = 8;

__device__ __forceinline__ void cast_eight(const float* from, bf16* to) {
  float f[kEach];
  load_row(f, from);
  store_floats(to, f);
}
__device__ __forceinline__ void cast_eight(const bf16* from, float* to) {
  float f[kEach];
  load_floats(f, from);
  for (int k = 0; k < kEach; k += 4) {
    Vector<float> v;
    for (int i = 0; i < 4; ++i) v[i] = f[k + i];
    store16(to + k, v);
  }
}

template <class From, class To>
__global__ void cast_all(const From* from, To* to, int64_t n) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kEach;
  if (first + kEach <= n) return cast_eight(from + first, to + first);
  for (int64_t i = first; i < n; ++i) to[i] = To(float(from[i]));
}

class Cast final : public Kernel {
 public:
  void run(const KernelArgs& args) override {
    const View &x = args.in[0], &y = args.out[0];
    const int64_t n = x.spec.stored_elements();
    const auto count = blocks((n + kEach - 1) / kEach, kThreads);
    if (x.spec.dtype == DType::f32)
      launch(cast_all<float, bf16>, count, kThreads, 0, args.stream, x.as<const float>(), y.as<bf16>(), n);
    else
      launch(cast_all<bf16, float>, count, kThreads, 0, args.stream, x.as<const bf16>(), y.as<float>(), n);
  }
};

}  // namespace

void register_cast(Registry& r, Device device) {
  r.add({.op = "cast",
         .name = "eights",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = DType::bf16,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           if (!cast::served(q)) return nullptr;
           return std::make_unique<Cast>();
         }});
}

}  // namespace lockstep::LOCKSTEP_DEVICE
