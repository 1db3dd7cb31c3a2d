// SPDX-License-Identifier: Apache-2.0
// Row by row: a row is read from memory once, and then from the L1 cache. Sums over a row run in 16 floats
// side by side, those over rows in floats over a piece's rows; what comes out is added up in double. No fma,
// so that all instruction sets give equal bits.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layer_norm/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include <algorithm>
#include <cmath>

#include "kernels/core/dtypes.h"
#include "kernels/core/parallel.h"
#include "kernels/layer_norm/geometry.h"
#include "kernels/layer_norm/kernels.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::layer_norm {
namespace HWY_NAMESPACE {

namespace simd = lockstep::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;
using simd::kVec;
using simd::Vec;

// 16 running sums.
class Sums {
 public:
  Sums() {
    for (Vec& v : of_) v = hn::Zero(simd::Floats());
  }
  // Numbers from column `at` of a row on.
  HWY_INLINE void add(int64_t at, Vec v) {
    Vec& sum = of_[at % kLanes / kVec];
    sum = hn::Add(sum, v);
  }
  double total() const {
    HWY_ALIGN float all[kLanes];
    for (int i = 0; i < kLanes / kVec; ++i) hn::Store(of_[i], simd::Floats(), all + i * kVec);
    double sum = 0;
    for (float f : all) sum += double{f};
    return sum;
  }

 private:
  Vec of_[kLanes / kVec];
};

// f(column, columns left) over a row, 16 columns after the other so that f's Sums stay in registers.
template <class F>
HWY_INLINE void for_columns(int64_t c, F f) {
  for (int64_t i = 0; i < c; i += kVec) f(i, c - i);
}

// v, zero from the `left`th number on.
HWY_INLINE Vec first_of(Vec v, int64_t left) {
  return left >= kVec ? v : hn::IfThenElseZero(hn::FirstN(simd::Floats(), static_cast<size_t>(left)), v);
}

template <class T>
void forward_row(const Geometry& g, double eps, const T* x, const float* gamma, const float* beta, T* y,
                 float* stats) {
  const simd::Floats d;
  const auto count = static_cast<double>(g.c);
  Sums sum;
  for_columns(g.c, [&](int64_t i, int64_t left) HWY_ATTR { sum.add(i, simd::load(x + i, left)); });
  const auto mean = static_cast<float>(sum.total() / count);
  const Vec center = hn::Set(d, mean);
  // Of the deviations from a mean that is rounded.
  Sums off, squares;
  for_columns(g.c, [&](int64_t i, int64_t left) HWY_ATTR {
    const Vec v = first_of(hn::Sub(simd::load(x + i, left), center), left);
    off.add(i, v), squares.add(i, hn::Mul(v, v));
  });
  const double beside = off.total();
  const auto invstd =
      static_cast<float>(1 / std::sqrt((squares.total() - beside * beside / count) / count + eps));
  stats[0] = mean, stats[1] = invstd;
  const Vec by = hn::Set(d, invstd);
  for_columns(g.c, [&](int64_t i, int64_t left) HWY_ATTR {
    const Vec scale = hn::Mul(simd::load(gamma + i, left), by);
    const Vec v = hn::Mul(hn::Sub(simd::load(x + i, left), center), scale);
    simd::store(hn::Add(v, simd::load(beta + i, left)), y + i, left);
  });
}

// dgamma, dbeta: the running sums of a piece. dx may be dy.
template <class T>
void backward_row(const Geometry& g, const T* x, const T* dy, const float* gamma, const float* stats, T* dx,
                  float* dgamma, float* dbeta) {
  const simd::Floats d;
  const Vec mean = hn::Set(d, stats[0]), invstd = hn::Set(d, stats[1]);
  const auto xhat = [&](int64_t i, int64_t left)
                        HWY_ATTR { return hn::Mul(hn::Sub(simd::load(x + i, left), mean), invstd); };
  Sums sum, product;
  for_columns(g.c, [&](int64_t i, int64_t left) HWY_ATTR {
    const Vec v = simd::load(dy + i, left), v_xhat = hn::Mul(v, xhat(i, left));  // v is zero past the row
    const Vec by = simd::load(gamma + i, left);
    sum.add(i, hn::Mul(v, by)), product.add(i, hn::Mul(v_xhat, by));
    simd::store(hn::Add(simd::load(dgamma + i, left), v_xhat), dgamma + i, left);
    simd::store(hn::Add(simd::load(dbeta + i, left), v), dbeta + i, left);
  });
  const auto count = static_cast<double>(g.c);
  const Vec shift = hn::Set(d, static_cast<float>(sum.total() / count));
  const Vec slope = hn::Set(d, static_cast<float>(product.total() / count));
  for_columns(g.c, [&](int64_t i, int64_t left) HWY_ATTR {
    const Vec v = hn::Mul(simd::load(dy + i, left), simd::load(gamma + i, left));
    const Vec off = hn::Add(shift, hn::Mul(xhat(i, left), slope));
    simd::store(hn::Mul(hn::Sub(v, off), invstd), dx + i, left);
  });
}

void forward(const Geometry& g, double eps, const KernelArgs& args, int64_t begin, int64_t end) {
  const float *gamma = args.in[1].as<float>(), *beta = args.in[2].as<float>();
  typed(args.in[0], [&](auto* x) {
    auto* y = static_cast<decltype(x)>(args.out[0].data);
    for (int64_t row = begin; row < end; ++row)
      forward_row(g, eps, x + row * g.c, gamma, beta, y + row * g.c, args.out[1].as<float>() + 2 * row);
  });
}

// Pieces [begin, end); sums [pieces][2][C].
void backward(const Geometry& g, const KernelArgs& args, float* sums, int64_t begin, int64_t end) {
  const float *gamma = args.in[2].as<float>(), *stats = args.in[3].as<float>();
  std::fill(sums + begin * 2 * g.c, sums + end * 2 * g.c, 0.0f);
  typed(args.in[0], [&](auto* x) {
    using Pointer = decltype(x);
    auto *dy = static_cast<Pointer>(args.in[1].data), *dx = static_cast<Pointer>(args.out[0].data);
    for (int64_t piece = begin; piece < end; ++piece) {
      float *dgamma = sums + piece * 2 * g.c, *dbeta = dgamma + g.c;
      for (int64_t row = g.first_row(piece); row < g.end_row(piece); ++row)
        backward_row(g, x + row * g.c, dy + row * g.c, gamma, stats + 2 * row, dx + row * g.c, dgamma, dbeta);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::layer_norm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::layer_norm {
namespace {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

class Forward final : public Kernel {
 public:
  explicit Forward(const KernelRequest& r)
      : g_(r.in[0]), eps_(double{r.params.as<LayerNormParams>().eps}), threads_(r.threads) {}
  void run(const KernelArgs& args) override {
    const auto f = HWY_DYNAMIC_DISPATCH(forward);
    parallel_ranges(g_.all_rows(), threads_, divide_up(kGrain, g_.c),
                    [&](int64_t begin, int64_t end) { f(g_, eps_, args, begin, end); });
  }

 private:
  Geometry g_;
  double eps_;
  int threads_;
};

class Backward final : public Kernel {
 public:
  explicit Backward(const KernelRequest& r) : g_(r.in[0]), threads_(r.threads) {}
  int64_t workspace_bytes() const override { return g_.pieces() * 2 * g_.c * size_of(DType::f32); }
  void run(const KernelArgs& args) override {
    auto* sums = static_cast<float*>(args.workspace);
    const auto f = HWY_DYNAMIC_DISPATCH(backward);
    parallel_ranges(g_.pieces(), threads_, divide_up(kGrain, g_.c * Geometry::kPieceRows),
                    [&](int64_t begin, int64_t end) { f(g_, args, sums, begin, end); });
    float *dgamma = args.out[1].as<float>(), *dbeta = args.out[2].as<float>();
    parallel_ranges(g_.c, threads_, divide_up(kGrain, std::max<int64_t>(1, g_.pieces())),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        double gamma = 0, beta = 0;
                        for (int64_t p = 0; p < g_.pieces(); ++p) {
                          gamma += double{sums[p * 2 * g_.c + i]};
                          beta += double{sums[(p * 2 + 1) * g_.c + i]};
                        }
                        dgamma[i] = static_cast<float>(gamma), dbeta[i] = static_cast<float>(beta);
                      }
                    });
  }

 private:
  Geometry g_;
  int threads_;
};

template <class K>
void add(Registry& r, const char* op, bool shard, const std::vector<size_t>& activations_in) {
  for (DType dtype : {DType::f32, DType::bf16})
    r.add({.op = op,
           .name = "rows",
           .layout = LayoutClass::plain,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = shard},
           .make = [dtype, activations_in](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             for (size_t i : activations_in)
               if (q.in[i].dtype != dtype) return nullptr;
             return q.out[0].dtype == dtype ? std::make_unique<K>(q) : nullptr;
           }});
}

}  // namespace

void register_highway(Registry& r) {
  add<Forward>(r, "layer_norm", true, {0});
  // dgamma and dbeta are rounded once for all of a rank's samples.
  add<Backward>(r, "layer_norm_grad", false, {0, 1});
}

}  // namespace lockstep::layer_norm
#endif
