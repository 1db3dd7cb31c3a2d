// SPDX-License-Identifier: Apache-2.0
// weighted_mse and its gradient. A sample's sum is kept in 16 sums in double, of every 16th number each,
// which are added in one order: in the lanes layout, where the numbers of 16 samples alternate, these are the
// samples' own. A square is exact in double, so fma or not gives the same bits.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/diffusion/weighted_mse.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include <hwy/highway.h>

#include <algorithm>

#include "kernels/core/bf16.h"
#include "kernels/core/parallel.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/kernels.h"
#include "kernels/diffusion/weighted_mse.h"

#ifndef LOCKSTEP_WEIGHTED_MSE_GEOMETRY
#define LOCKSTEP_WEIGHTED_MSE_GEOMETRY
namespace lockstep::diffusion {

// Samples one by one or, in the lanes layout, in blocks of 16.
struct MseGeometry {
  int64_t n, elements, block;
  DType dtype;
  explicit MseGeometry(const TensorSpec& pred)
      : n(pred.shape[0]),
        elements(pred.shape.elements_from(1)),
        block(pred.layout == Layout::lanes ? kLanes : 1),
        dtype(pred.dtype) {}
  int64_t blocks() const { return (n + block - 1) / block; }
  int64_t block_elements() const { return elements * block; }
  int64_t used(int64_t b) const { return std::min(block, n - b * block); }
};

}  // namespace lockstep::diffusion
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::diffusion {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// As many floats as a vector has doubles.
using Doubles = hn::CappedTag<double, kLanes>;
using Singles = hn::Rebind<float, Doubles>;

HWY_INLINE hn::Vec<Singles> load_floats(const float* p) { return hn::LoadU(Singles(), p); }
HWY_INLINE hn::Vec<Singles> load_floats(const bf16* p) {
  const hn::Rebind<uint16_t, Singles> narrow;
  const hn::Rebind<uint32_t, Singles> wide;
  const auto bits = hn::LoadU(narrow, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(Singles(), hn::ShiftLeft<16>(hn::PromoteTo(wide, bits)));
}

// sums[i % 16] += (pred[i] - target[i])^2, i < n.
template <class T>
void add_squares(const T* pred, const float* target, int64_t n, double* sums) {
  const Doubles d;
  constexpr int kStep = static_cast<int>(hn::MaxLanes(Doubles())), kVectors = kLanes / kStep;
  hn::Vec<Doubles> acc[kVectors];
  for (auto& a : acc) a = hn::Zero(d);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = i + v * kStep;
      const auto error = hn::PromoteTo(d, hn::Sub(load_floats(pred + at), load_floats(target + at)));
      acc[v] = hn::MulAdd(error, error, acc[v]);
    }
  for (int v = 0; v < kVectors; ++v) hn::StoreU(acc[v], d, sums + v * kStep);
  for (; i < n; ++i) {
    const double error = static_cast<float>(pred[i]) - target[i];
    sums[i % kLanes] += error * error;
  }
}

// losses[n] of blocks [first, last).
template <class T>
void losses_of(const MseGeometry& g, const T* pred, const float* target, const float* weights, double* losses,
               int64_t first, int64_t last) {
  for (int64_t b = first; b < last; ++b) {
    HWY_ALIGN double sums[kLanes];
    const int64_t at = b * g.block_elements();
    add_squares(pred + at, target + at, g.block_elements(), sums);
    if (g.block == 1)
      for (int i = 1; i < kLanes; ++i) sums[0] += sums[i];
    for (int64_t i = 0; i < g.used(b); ++i) {
      const int64_t n = b * g.block + i;
      losses[n] = double{weights[n]} * (sums[i] / static_cast<double>(g.elements));
    }
  }
}

template <class T>
void gradient_of(const MseGeometry& g, const T* pred, const float* target, const float* weights, double scale,
                 T* dpred, int64_t first, int64_t last) {
  for (int64_t b = first; b < last; ++b) {
    float factors[kLanes] = {};
    for (int64_t i = 0; i < g.used(b); ++i)
      factors[i] = static_cast<float>(double{weights[b * g.block + i]} * scale);
    const int64_t begin = b * g.block_elements(), end = begin + g.block_elements();
    if (g.block == 1) {
      const float factor = factors[0];
      for (int64_t i = begin; i < end; ++i) dpred[i] = T(factor * (static_cast<float>(pred[i]) - target[i]));
    } else {
      // Padding lanes may hold anything finite.
      const int64_t used = g.used(b);
      for (int64_t i = begin; i < end; i += kLanes)
        for (int64_t j = 0; j < kLanes; ++j)
          dpred[i + j] = T(j < used ? factors[j] * (static_cast<float>(pred[i + j]) - target[i + j]) : 0.0f);
    }
  }
}

void mse_losses(const MseGeometry& g, const void* pred, const float* target, const float* weights,
                double* losses, int64_t first, int64_t last) {
  if (g.dtype == DType::bf16)
    losses_of(g, static_cast<const bf16*>(pred), target, weights, losses, first, last);
  else
    losses_of(g, static_cast<const float*>(pred), target, weights, losses, first, last);
}

void mse_gradient(const MseGeometry& g, const void* pred, const float* target, const float* weights,
                  double scale, void* dpred, int64_t first, int64_t last) {
  if (g.dtype == DType::bf16)
    gradient_of(g, static_cast<const bf16*>(pred), target, weights, scale, static_cast<bf16*>(dpred), first,
                last);
  else
    gradient_of(g, static_cast<const float*>(pred), target, weights, scale, static_cast<float*>(dpred), first,
                last);
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::diffusion
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::diffusion {
namespace {

HWY_EXPORT(mse_losses);
HWY_EXPORT(mse_gradient);

template <class F>
void for_blocks(const MseGeometry& g, int threads, F f) {
  constexpr int64_t kGrain = 1 << 14;  // elements that are worth a thread
  parallel_ranges(g.blocks(), threads, kGrain / std::max<int64_t>(1, g.block_elements()), f);
}

class WeightedMse final : public Kernel {
 public:
  explicit WeightedMse(const KernelRequest& r) : g_(r.in[0]), threads_(r.threads) {}
  int64_t workspace_bytes() const override { return g_.n * static_cast<int64_t>(sizeof(double)); }
  void run(const KernelArgs& args) override {
    auto* losses = static_cast<double*>(args.workspace);
    for_blocks(g_, threads_, [&](int64_t first, int64_t last) {
      HWY_DYNAMIC_DISPATCH(mse_losses)
      (g_, args.in[0].data, args.in[1].as<float>(), args.in[2].as<float>(), losses, first, last);
    });
    double sum = 0;
    for (int64_t n = 0; n < g_.n; ++n) sum += losses[n];
    args.out[0].as<float>()[0] = static_cast<float>(sum);
    args.out[0].as<float>()[1] = static_cast<float>(g_.n);
  }

 private:
  MseGeometry g_;
  int threads_;
};

void weighted_mse_grad(const NoParams&, const KernelArgs& args, int threads) {
  const MseGeometry g(args.in[0].spec);
  const auto samples = static_cast<double>(args.in[3].as<StepState>()->global_samples);
  const double scale = 2 / (static_cast<double>(g.elements) * samples);
  for_blocks(g, threads, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(mse_gradient)
    (g, args.in[0].data, args.in[1].as<float>(), args.in[2].as<float>(), scale, args.out[0].data, first,
     last);
  });
}

}  // namespace

void register_weighted_mse_highway(Registry& r) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const auto add = [&](const char* op, bool shard, auto make) {
      r.add({.op = op,
             .name = "highway",
             .layout = LayoutClass::any,
             .dtype = dtype,
             .bit_exact = {.threads = true, .shard = shard},
             .make = [dtype, make](const KernelRequest& q) -> std::unique_ptr<Kernel> {
               return q.in[0].dtype == dtype ? make(q) : nullptr;
             }});
    };
    add("weighted_mse", false, [](const KernelRequest& q) { return std::make_unique<WeightedMse>(q); });
    add("weighted_mse_grad", true, stateless<NoParams>(weighted_mse_grad));
  }
}

}  // namespace lockstep::diffusion
#endif
