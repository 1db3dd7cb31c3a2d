// SPDX-License-Identifier: Apache-2.0
// diffusion_noise: 64 normals of a sample at a time, in logical order, wherever the layout has their
// elements. Products and sums are rounded one by one, no fma, so that every instruction set gives the same
// bits.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/diffusion/noise.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/random/philox-inl.h"

#include <algorithm>

#include "kernels/core/bf16.h"
#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/kernels.h"

#ifndef LOCKSTEP_DIFFUSION_NOISE_TASK
#define LOCKSTEP_DIFFUSION_NOISE_TASK
namespace lockstep::diffusion {

// One run over n samples of `elements`, in blocks of one sample or, in the lanes layout, of 16.
struct NoiseTask {
  const void* x0;
  void* x_t;
  float* target;
  const NoiseRow* rows;
  int32_t* timesteps;
  int64_t n, elements, channels, pixels;
  Layout layout;
  DType dtype;
  Prediction prediction;
  DrawKey key;
  int64_t first_sample;

  int64_t block() const { return layout == Layout::lanes ? kLanes : 1; }
};

}  // namespace lockstep::diffusion
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::diffusion {
namespace HWY_NAMESPACE {

using namespace lockstep::HWY_NAMESPACE;

// Where elements [begin, begin + count) of a sample lie, relative to its first.
inline void offsets_of(const NoiseTask& t, int64_t begin, int64_t count, int64_t* offsets) {
  if (t.layout != Layout::nhwc) {
    const int64_t stride = t.block();
    for (int64_t i = 0; i < count; ++i) offsets[i] = (begin + i) * stride;
    return;
  }
  int64_t c = begin / t.pixels, pixel = begin % t.pixels;
  for (int64_t i = 0; i < count; ++i) {
    offsets[i] = pixel * t.channels + c;
    if (++pixel == t.pixels) pixel = 0, ++c;
  }
}

// x_t over x.
inline void mix(const NoiseRow& row, Prediction prediction, const float* eps, float* x, float* target) {
  const auto go = [&](auto wanted) {
    for (int64_t i = 0; i < kDraws; ++i) {
      target[i] = wanted(x[i], eps[i]);
      x[i] = row.signal * x[i] + row.noise * eps[i];
    }
  };
  switch (prediction) {
    case Prediction::epsilon:
      return go([](float, float e) { return e; });
    case Prediction::sample:
      return go([](float v, float) { return v; });
    case Prediction::v_prediction:
      return go([&](float v, float e) { return row.signal * e - row.noise * v; });
  }
}

template <class T>
void add_noise(const NoiseTask& t, int64_t first_block, int64_t last_block) {
  const int64_t block = t.block();
  for (int64_t begin = 0; begin < t.elements; begin += kDraws) {
    const int64_t count = std::min(kDraws, t.elements - begin);
    int64_t offsets[kDraws];
    offsets_of(t, begin, count, offsets);
    for (int64_t n = first_block * block; n < std::min(t.n, last_block * block); ++n) {
      HWY_ALIGN float eps[kDraws], x[kDraws] = {}, target[kDraws];
      normals_along(t.key, t.first_sample + n, begin / 4, eps);
      const int64_t at = n / block * block * t.elements + n % block;
      const T* from = static_cast<const T*>(t.x0) + at;
      T* to = static_cast<T*>(t.x_t) + at;
      for (int64_t i = 0; i < count; ++i) x[i] = static_cast<float>(from[offsets[i]]);
      mix(t.rows[t.timesteps[n]], t.prediction, eps, x, target);
      for (int64_t i = 0; i < count; ++i) {
        to[offsets[i]] = T(x[i]);
        t.target[at + offsets[i]] = target[i];
      }
    }
  }
}

// Blocks [first, last).
void run_noise(const NoiseTask& t, int64_t first, int64_t last) {
  t.dtype == DType::bf16 ? add_noise<bf16>(t, first, last) : add_noise<float>(t, first, last);
}

void draw_normals(const DrawKey& key, int64_t sample, int64_t elements, float* out) {
  for (int64_t begin = 0; begin < elements; begin += kDraws) {
    HWY_ALIGN float eps[kDraws];
    normals_along(key, sample, begin / 4, eps);
    std::copy_n(eps, std::min(kDraws, elements - begin), out + begin);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::diffusion
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {
namespace diffusion {
namespace {

HWY_EXPORT(run_noise);
HWY_EXPORT(draw_normals);

class Highway final : public Kernel {
 public:
  explicit Highway(const KernelRequest& r)
      : rows_(noise_rows(r.params.as<DiffusionNoiseParams>())),
        prediction_(r.params.as<DiffusionNoiseParams>().prediction),
        threads_(r.threads) {}

  void run(const KernelArgs& args) override {
    const View &x0 = args.in[0], &x_t = args.out[0], &target = args.out[1];
    const StepState& state = *args.in[1].as<const StepState>();
    const NoiseTask t{.x0 = x0.data,
                      .x_t = x_t.data,
                      .target = target.as<float>(),
                      .rows = rows_.data(),
                      .timesteps = args.out[2].as<int32_t>(),
                      .n = x0.dim(0),
                      .elements = x0.shape().elements_from(1),
                      .channels = x0.dim(1),
                      .pixels = x0.shape().elements_from(2),
                      .layout = x0.spec.layout,
                      .dtype = x0.spec.dtype,
                      .prediction = prediction_,
                      .key = {state.seed, stream::kNoise, state.step},
                      .first_sample = state.first_sample};
    for (int64_t n = 0; n < t.n; ++n) {
      t.timesteps[n] =
          draw_timestep(state.seed, state.step, state.first_sample + n, static_cast<int64_t>(rows_.size()));
      args.out[3].as<float>()[n] = rows_[static_cast<size_t>(t.timesteps[n])].weight;
    }
    constexpr int64_t kGrain = 4096;  // normals that are worth a thread
    const int64_t each = std::max<int64_t>(1, t.elements * t.block());
    parallel_ranges((t.n + t.block() - 1) / t.block(), threads_, kGrain / each,
                    [&](int64_t first, int64_t last) {
                      HWY_DYNAMIC_DISPATCH(run_noise)
                      (t, first, last);
                    });
    zero_padding_lanes(x_t);
    zero_padding_lanes(target);
  }

 private:
  std::vector<NoiseRow> rows_;
  Prediction prediction_;
  int threads_;
};

}  // namespace

void register_noise_highway(Registry& r) {
  for (DType dtype : {DType::f32, DType::bf16})
    r.add({.op = "diffusion_noise",
           .name = "highway",
           .layout = LayoutClass::any,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = true},
           .make = [dtype](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             if (q.in[0].dtype != dtype || q.out[0].dtype != dtype) return nullptr;
             return std::make_unique<Highway>(q);
           }});
}

}  // namespace diffusion

void draw_noise(uint64_t seed, int64_t step, int64_t sample, int64_t elements, float* out) {
  using namespace diffusion;
  HWY_DYNAMIC_DISPATCH(draw_normals)({seed, stream::kNoise, step}, sample, elements, out);
}

}  // namespace lockstep
#endif
