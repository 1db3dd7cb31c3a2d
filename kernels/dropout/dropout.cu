// SPDX-License-Identifier: Apache-2.0
// One thread draws four numbers and serves the elements that they decide on: four of a sample in logical
// order, or, where a draw is for a whole channel, one pixel of four channels.
#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "kernels/dropout/dropout.h"
#include "kernels/gpu/device_code.h"
#include "kernels/random/philox.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

struct Geometry {
  int64_t samples, channels, pixels;
  bool nhwc, channelwise;

  __device__ int64_t draws() const { return channelwise ? channels : channels * pixels; }
  __device__ int64_t offset(int64_t channel, int64_t pixel) const {
    return nhwc ? pixel * channels + channel : channel * pixels + pixel;
  }
};

template <class T>
__global__ void dropout(const T* x, T* y, const StepState* state, Geometry g, uint32_t layer, float p,
                        float scale) {
  const int64_t groups = (g.draws() + 3) / 4;  // of a sample
  const int64_t threads = groups * (g.channelwise ? g.pixels : 1);
  const int64_t u = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, n = u / threads, t = u % threads;
  if (n >= g.samples) return;
  // Neighbours in a warp work on neighbours in memory.
  int64_t q = t, pixel = 0;
  if (g.channelwise) {
    q = g.nhwc ? t % groups : t / g.pixels;
    pixel = g.nhwc ? t / groups : t % g.pixels;
  } else if (g.nhwc && g.pixels % 4 == 0) {
    q = t % g.channels * (g.pixels / 4) + t / g.channels;
  }
  const Philox4 draw =
      random4(state->seed, stream::kDropout + layer, state->step, state->first_sample + n, q);
  const int64_t sample = n * g.channels * g.pixels;
  const auto kept = [&](int k, T v) { return T(uniform01(draw.x[k]) >= p ? float(v) * scale : 0.0f); };
  if (!g.channelwise && !g.nhwc && g.channels * g.pixels % 4 == 0) {
    Vector<T, 4> four = load_vector<4>(x + sample + 4 * q);
#pragma unroll
    for (int k = 0; k < 4; ++k) four[k] = kept(k, four[k]);
    store_vector(y + sample + 4 * q, four);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t e = 4 * q + k;
    if (e >= g.draws()) break;
    const int64_t i = sample + (g.channelwise ? g.offset(e, pixel) : g.offset(e / g.pixels, e % g.pixels));
    y[i] = kept(k, x[i]);
  }
}

template <class T>
void run(const DropoutParams& p, const KernelArgs& args) {
  const View& x = args.in[0];
  const Shape& s = x.shape();
  const Geometry g{s[0], s[1], s.elements_from(2), x.spec.layout == Layout::nhwc, p.channelwise};
  const int64_t groups = ((p.channelwise ? g.channels : g.channels * g.pixels) + 3) / 4;
  const int64_t threads = g.samples * groups * (p.channelwise ? g.pixels : 1);
  launch(dropout<T>, blocks(threads, kThreads), kThreads, 0, args.stream, x.as<const T>(),
         args.out[0].as<T>(), args.in[1].as<const StepState>(), g, p.layer, p.p,
         p.p < 1 ? 1 / (1 - p.p) : 0.0f);
}

template <class T>
void add(Registry& r, Device device, DType dtype) {
  r.add({.op = "dropout",
         .name = "philox",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = dtype,
         .bit_exact = {.threads = true, .shard = true},
         .make = [dtype](const KernelRequest& request) -> std::unique_ptr<Kernel> {
           const TensorSpec& x = request.in[0];
           if (x.dtype != dtype || request.out[0].dtype != dtype || x.layout == Layout::lanes) return nullptr;
           return stateless<DropoutParams>(run<T>)(request);
         }});
}

}  // namespace

void register_dropout(Registry& r, Device device) {
  add<float>(r, device, DType::f32);
  add<bf16>(r, device, DType::bf16);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
