// SPDX-License-Identifier: Apache-2.0
// diffusion_noise: one thread draws four normals and serves their elements, four of a sample in logical
// order. Products and sums are rounded one by one, as on the CPU.
#include "kernels/core/step_state.h"
#include "kernels/diffusion/kernels.h"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/vectors.h"
#include "kernels/random/normal.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

using diffusion::NoiseRow;
constexpr int kNoiseThreads = 256;

struct NoiseGeometry {
  int64_t samples, elements, channels, pixels;
  bool nhwc;

  __host__ __device__ int64_t groups() const { return (elements + 3) / 4; }  // of a sample
  __device__ int64_t offset(int64_t e) const { return nhwc ? e % pixels * channels + e / pixels : e; }
};

struct NoiseOutputs {
  float* target;
  int32_t* timesteps;
  float* weights;
};

struct Mixed {
  float x_t, target;
};

__device__ __forceinline__ Mixed mix(const NoiseRow& row, Prediction prediction, float x, float eps) {
  const float v = __fsub_rn(__fmul_rn(row.signal, eps), __fmul_rn(row.noise, x));
  return {__fadd_rn(__fmul_rn(row.signal, x), __fmul_rn(row.noise, eps)),
          prediction == Prediction::epsilon  ? eps
          : prediction == Prediction::sample ? x
                                             : v};
}

template <class T>
__global__ void diffusion_noise(const T* x0, T* x_t, NoiseOutputs out, const StepState* state,
                                const NoiseRow* rows, int64_t timesteps, NoiseGeometry g,
                                Prediction prediction) {
  const int64_t u = int64_t{blockIdx.x} * kNoiseThreads + threadIdx.x, n = u / g.groups(), t = u % g.groups();
  if (n >= g.samples) return;
  const int64_t sample = state->first_sample + n;
  const int32_t timestep = draw_timestep(state->seed, state->step, sample, timesteps);
  const NoiseRow row = rows[timestep];
  if (t == 0) out.timesteps[n] = timestep, out.weights[n] = row.weight;
  // Neighbours in a warp work on neighbours in memory.
  const int64_t q = g.nhwc && g.pixels % 4 == 0 ? t % g.channels * (g.pixels / 4) + t / g.channels : t;
  const Normal4 eps = normal4(random4(state->seed, stream::kNoise, state->step, sample, q));
  const int64_t base = n * g.elements;
  if (!g.nhwc && g.elements % 4 == 0) {
    const Vector<T, 4> x = load_vector<4>(x0 + base + 4 * q);
    Vector<T, 4> noisy;
    Vector<float, 4> target;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const Mixed m = mix(row, prediction, float(x[k]), eps.x[k]);
      noisy[k] = T(m.x_t), target[k] = m.target;
    }
    store_vector(x_t + base + 4 * q, noisy);
    store_vector(out.target + base + 4 * q, target);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t e = 4 * q + k;
    if (e >= g.elements) break;
    const int64_t i = base + g.offset(e);
    const Mixed m = mix(row, prediction, float(x0[i]), eps.x[k]);
    x_t[i] = T(m.x_t), out.target[i] = m.target;
  }
}

template <class T>
class DiffusionNoise final : public Kernel {
 public:
  explicit DiffusionNoise(const DiffusionNoiseParams& p)
      : rows_(diffusion::noise_rows(p)), prediction_(p.prediction) {}

  void run(const KernelArgs& args) override {
    const View& x0 = args.in[0];
    const Shape& s = x0.shape();
    const NoiseGeometry g{s[0], s.elements_from(1), s[1], s.elements_from(2), x0.spec.layout == Layout::nhwc};
    const NoiseOutputs out{args.out[1].as<float>(), args.out[2].as<int32_t>(), args.out[3].as<float>()};
    launch(diffusion_noise<T>, blocks(g.samples * g.groups(), kNoiseThreads), kNoiseThreads, 0, args.stream,
           x0.as<const T>(), args.out[0].as<T>(), out, args.in[1].as<const StepState>(), rows_.data(),
           rows_.size(), g, prediction_);
  }

 private:
  DeviceTable<NoiseRow> rows_;
  Prediction prediction_;
};

template <class T>
void add_noise(Registry& r, Device device) {
  r.add({.op = "diffusion_noise",
         .name = "philox",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           const TensorSpec& x = q.in[0];
           if (x.dtype != dtype_of<T> || q.out[0].dtype != x.dtype || x.layout == Layout::lanes)
             return nullptr;
           return std::make_unique<DiffusionNoise<T>>(q.params.as<DiffusionNoiseParams>());
         }});
}

}  // namespace

void register_diffusion_noise(Registry& r, Device device) {
  add_noise<float>(r, device);
  add_noise<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
