// SPDX-License-Identifier: Apache-2.0
// Timestep embedding on a GPU: a thread has one number.
#include <cmath>

#include "kernels/gpu/device_code.h"
#include "kernels/gpu/vectors.h"
#include "kernels/random/normal.h"
#include "kernels/timestep_embedding/frequencies.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 128;

// CUDA's own sine of any float has a table of 2/pi on its stack, for huge angles. Reduced to a turn in
// double, angles are within 2e-9.
__device__ __forceinline__ normal::SinCos sine_and_cosine(float angle) {
  const double turns = double{angle} * 0.15915494309189535;  // 1 / (2 pi)
  return normal::sincos(static_cast<uint32_t>(static_cast<int64_t>((turns - floor(turns)) * 0x1p32 + 0.5)));
}

template <class Time, class T>
__global__ void embed_times(const Time* times, const float* frequencies, T* y, unsigned dim,
                            bool cosines_first, float scale, unsigned count) {
  const unsigned at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= count) return;
  const unsigned n = at / dim, i = at % dim, half = dim / 2;
  float v = 0;
  if (i < 2 * half) {
    const float angle = __fmul_rn(scale, __fmul_rn(float(times[n]), frequencies[i % half]));
    const normal::SinCos of = sine_and_cosine(angle);
    v = (i < half) == cosines_first ? of.cos : of.sin;
  }
  y[at] = T(v);
}

template <class T>
class TimestepEmbedding final : public Kernel {
 public:
  explicit TimestepEmbedding(const TimestepEmbeddingParams& p)
      : p_(p), frequencies_(timestep_frequencies(p)) {}
  void run(const KernelArgs& args) override {
    const View& t = args.in[0];
    const auto start = [&](auto time) {
      using Time = decltype(time);
      const int64_t count = t.dim(0) * p_.dim;
      launch(embed_times<Time, T>, blocks(count, kThreads), kThreads, 0, args.stream, t.as<const Time>(),
             frequencies_.data(), args.out[0].as<T>(), p_.dim, p_.flip_sin_to_cos, p_.scale, count);
    };
    if (t.spec.dtype == DType::i32)
      start(int32_t{});
    else
      start(float{});
  }

 private:
  TimestepEmbeddingParams p_;
  DeviceTable<float> frequencies_;
};

template <class T>
void add_timestep_embedding(Registry& r, Device device) {
  r.add({.op = "timestep_embedding",
         .name = "direct",
         .device = device,
         .layout = LayoutClass::plain,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           const bool time = q.in[0].dtype == DType::i32 || q.in[0].dtype == DType::f32;
           if (!time || q.out[0].dtype != dtype_of<T>) return nullptr;
           return std::make_unique<TimestepEmbedding<T>>(q.params.as<TimestepEmbeddingParams>());
         }});
}

}  // namespace

void register_timestep_embedding(Registry& r, Device device) {
  add_timestep_embedding<float>(r, device);
  add_timestep_embedding<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
