// SPDX-License-Identifier: Apache-2.0
// grad_norm and optimizer_step with Highway. Which order of operations gives the bits: optimizer.h.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/core/kernel.h"
#include "kernels/core/parallel.h"
#include "kernels/core/step_state.h"
#include "kernels/optimizer/optimizer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optimizer/simd.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/simd/vector-inl.h"

#ifndef LOCKSTEP_OPTIMIZER_SIMD_ONCE
#define LOCKSTEP_OPTIMIZER_SIMD_ONCE
namespace lockstep {

struct OptimizerChunk {
  int64_t begin, length;
};

inline constexpr int64_t kOptimizerUnit = 16;  // elements; a segment is handed to threads in units

// A segment that is not frozen.
struct LiveSegment {
  int64_t begin, end, first_unit;
  double lr_scale, weight_decay;
};

// Null where there is none.
struct OptimizerArrays {
  float *params, *state0, *state1, *ema;
  bf16* half;
  const float* grads;
};

// One step's factors, in double.
struct OptimizerFactors {
  OptimizerParams::Kind kind;
  bool momentum, first, nesterov;
  double lr, bias1;  // bias1: 1 - b1^t, or 1
  float clip, ema_gain;
  float sgd_momentum, sgd_gain;                            // gain: 1 - dampening
  float adam_gain1, adam_keep2, adam_gain2, eps, invroot;  // 1 - b1, b2, 1 - b2, eps, 1 / sqrt(1 - b2^t)
};

}  // namespace lockstep
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

// Sum of squares of each chunk. Squares of floats are exact in double, so that fma or not is the same;
// 16 sums side by side on every instruction set.
void optimizer_sum_squares(const float* grads, const OptimizerChunk* chunks, int64_t begin, int64_t end,
                           double* out) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  constexpr int kWide = static_cast<int>(hn::MaxLanes(d)), kSums = 16 / kWide;
  for (int64_t c = begin; c < end; ++c) {
    const float* g = grads + chunks[c].begin;
    const int64_t length = chunks[c].length;
    hn::Vec<decltype(d)> sum[kSums];
    for (auto& s : sum) s = hn::Zero(d);
    HWY_ALIGN float rest[16] = {};
    const int64_t whole = length / 16 * 16;
    for (int64_t i = 0; i < whole; i += 16)
      for (int j = 0; j < kSums; ++j) {
        const auto x = hn::PromoteTo(d, hn::LoadU(half, g + i + j * kWide));
        sum[j] = hn::Add(sum[j], hn::Mul(x, x));
      }
    std::copy(g + whole, g + length, rest);
    HWY_ALIGN double all[16];
    for (int j = 0; j < kSums; ++j) {
      const auto x = hn::PromoteTo(d, hn::LoadU(half, rest + j * kWide));
      hn::Store(hn::Add(sum[j], hn::Mul(x, x)), d, all + j * kWide);
    }
    for (int width = 8; width >= 1; width /= 2)
      for (int j = 0; j < width; ++j) all[j] += all[j + width];
    out[c] = all[0];
  }
}

// The new parameter p to element i of n, and what follows from it.
HWY_INLINE void store_parameter(Vec p, const OptimizerFactors& f, const OptimizerArrays& a, int64_t i,
                                int64_t n) {
  store(p, a.params + i, n);
  if (a.ema != nullptr) {
    const Vec ema = load(a.ema + i, n);
    store(hn::Sub(ema, hn::Mul(hn::Set(Floats(), f.ema_gain), hn::Sub(ema, p))), a.ema + i, n);
  }
  if (a.half != nullptr) store(p, a.half + i, n);
}

// Elements [begin, end) of one segment.
inline void sgd_range(const OptimizerFactors& f, const LiveSegment& s, const OptimizerArrays& a,
                      int64_t begin, int64_t end) {
  const Floats d;
  const Vec clip = hn::Set(d, f.clip), lr = hn::Set(d, static_cast<float>(f.lr * s.lr_scale));
  const Vec decay = hn::Set(d, static_cast<float>(s.weight_decay));
  const Vec momentum = hn::Set(d, f.sgd_momentum), gain = hn::Set(d, f.sgd_gain);
  const bool decays = s.weight_decay != 0;
  for (int64_t i = begin; i < end; i += kVec) {
    const int64_t n = end - i;
    const Vec p = load(a.params + i, n);
    Vec g = hn::Mul(load(a.grads + i, n), clip);
    if (decays) g = hn::Add(g, hn::Mul(decay, p));
    if (f.momentum) {
      Vec buffer = g;
      if (!f.first) buffer = hn::Add(hn::Mul(momentum, load(a.state0 + i, n)), hn::Mul(gain, g));
      store(buffer, a.state0 + i, n);
      g = f.nesterov ? hn::Add(g, hn::Mul(momentum, buffer)) : buffer;
    }
    store_parameter(hn::Sub(p, hn::Mul(lr, g)), f, a, i, n);
  }
}

inline void adam_range(const OptimizerFactors& f, const LiveSegment& s, const OptimizerArrays& a,
                       int64_t begin, int64_t end) {
  const Floats d;
  const double rate = f.lr * s.lr_scale;
  const bool decoupled = f.kind == OptimizerParams::Kind::adamw, decays = s.weight_decay != 0;
  const Vec clip = hn::Set(d, f.clip), step = hn::Set(d, static_cast<float>(rate / f.bias1));
  const Vec decay = hn::Set(d, static_cast<float>(s.weight_decay));
  const Vec keep = hn::Set(d, static_cast<float>(1 - rate * s.weight_decay));
  const Vec gain1 = hn::Set(d, f.adam_gain1), keep2 = hn::Set(d, f.adam_keep2),
            gain2 = hn::Set(d, f.adam_gain2);
  const Vec eps = hn::Set(d, f.eps), invroot = hn::Set(d, f.invroot);
  for (int64_t i = begin; i < end; i += kVec) {
    const int64_t n = end - i;
    Vec p = load(a.params + i, n);
    Vec g = hn::Mul(load(a.grads + i, n), clip);
    if (decays) {
      if (decoupled)
        p = hn::Mul(p, keep);
      else
        g = hn::Add(g, hn::Mul(decay, p));
    }
    Vec m = load(a.state0 + i, n), v = load(a.state1 + i, n);
    m = hn::Add(m, hn::Mul(gain1, hn::Sub(g, m)));
    v = hn::Add(hn::Mul(keep2, v), hn::Mul(hn::Mul(gain2, g), g));
    store(m, a.state0 + i, n);
    store(v, a.state1 + i, n);
    const Vec root = hn::Add(hn::Mul(hn::Sqrt(v), invroot), eps);
    store_parameter(hn::Sub(p, hn::Div(hn::Mul(step, m), root)), f, a, i, n);
  }
}

// Units [begin, end), which begin in `segment`.
void optimizer_units(const OptimizerFactors& f, const LiveSegment* segment, const OptimizerArrays& a,
                     int64_t begin, int64_t end) {
  for (; begin < end; ++segment) {
    const int64_t from = segment->begin + (begin - segment->first_unit) * kOptimizerUnit;
    const int64_t to = std::min(segment->end, from + (end - begin) * kOptimizerUnit);
    if (f.kind == OptimizerParams::Kind::sgd)
      sgd_range(f, *segment, a, from, to);
    else
      adam_range(f, *segment, a, from, to);
    begin += (to - from + kOptimizerUnit - 1) / kOptimizerUnit;
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {
namespace {

HWY_EXPORT(optimizer_sum_squares);
HWY_EXPORT(optimizer_units);

constexpr int64_t kGrain = 32768;  // elements that are worth a thread

void check_segments(const OptimizerParams& p, const TensorSpec& array) {
  for (const auto& s : p.segments)
    LOCKSTEP_ASSERT(0 <= s.begin && s.begin <= s.end && s.end <= array.shape.elements(),
                    "segment [{}, {}) of an array of {}", s.begin, s.end, array.shape.elements());
}

class GradNorm final : public Kernel {
 public:
  explicit GradNorm(const KernelRequest& r) : threads_(r.threads) {
    check_segments(r.params.as<OptimizerParams>(), r.in[0]);
    constexpr int64_t kChunk = 8192;
    for (const auto& s : r.params.as<OptimizerParams>().segments)
      for (int64_t i = s.begin; i < s.end && !s.frozen; i += kChunk) {
        chunks_.push_back({i, std::min(kChunk, s.end - i)});
        elements_ += chunks_.back().length;
      }
  }
  int64_t workspace_bytes() const override { return count() * static_cast<int64_t>(sizeof(double)); }
  void run(const KernelArgs& args) override {
    double* sums = static_cast<double*>(args.workspace);
    const float* grads = args.in[0].as<float>();
    const auto f = HWY_DYNAMIC_DISPATCH(optimizer_sum_squares);
    const int64_t average = std::max<int64_t>(1, elements_ / std::max<int64_t>(1, count()));
    parallel_ranges(count(), threads_, kGrain / average,
                    [&](int64_t begin, int64_t end) { f(grads, chunks_.data(), begin, end, sums); });
    double all = 0;
    for (int64_t i = 0; i < count(); ++i) all += sums[i];
    args.out[0].as<float>()[0] = static_cast<float>(std::sqrt(all));
  }

 private:
  int64_t count() const { return static_cast<int64_t>(chunks_.size()); }
  int threads_;
  std::vector<OptimizerChunk> chunks_;
  int64_t elements_ = 0;
};

class Step final : public Kernel {
 public:
  explicit Step(const KernelRequest& r) : p_(r.params.as<OptimizerParams>()), threads_(r.threads) {
    check_segments(p_, r.in[0]);
    for (const auto& s : p_.segments) {
      if (s.frozen || s.begin == s.end) continue;
      live_.push_back({s.begin, s.end, units_, s.lr_scale, s.weight_decay});
      units_ += (s.end - s.begin + kOptimizerUnit - 1) / kOptimizerUnit;
    }
  }

  void run(const KernelArgs& args) override {
    const int states = p_.state_count();
    for (size_t i = 0; i < args.out.size(); ++i) {  // not in place: as if it were, on a copy
      const View &from = args.in[i == 0 ? 0 : i + 4], &to = args.out[i];
      if (from.data != to.data) std::memcpy(to.data, from.data, static_cast<size_t>(from.spec.bytes()));
    }
    if (!std::isfinite(args.in[3].as<float>()[0])) return;
    const OptimizerArrays a{.params = args.out[0].as<float>(),
                            .state0 = states > 0 ? args.out[1].as<float>() : nullptr,
                            .state1 = states > 1 ? args.out[2].as<float>() : nullptr,
                            .ema = p_.ema ? args.out[p_.ema_output()].as<float>() : nullptr,
                            .half = p_.half ? args.out[p_.half_output()].as<bf16>() : nullptr,
                            .grads = args.in[1].as<float>()};
    const OptimizerFactors f = factors(*args.in[2].as<StepState>(), args.in[4]);
    const auto work = HWY_DYNAMIC_DISPATCH(optimizer_units);
    parallel_ranges(units_, threads_, kGrain / kOptimizerUnit, [&](int64_t begin, int64_t end) {
      const auto after =
          std::upper_bound(live_.begin(), live_.end(), begin,
                           [](int64_t unit, const LiveSegment& s) { return unit < s.first_unit; });
      work(f, &*(after - 1), a, begin, end);
    });
  }

 private:
  OptimizerFactors factors(const StepState& now, const View& norm) const {
    const double t = static_cast<double>(now.step + 1);
    float clip = 1;
    if (p_.clip_norm > 0) {
      clip = static_cast<float>(p_.clip_norm / (double{norm.as<float>()[0]} + 1e-6));
      if (clip > 1) clip = 1;  // NaN stays
    }
    const auto f32 = [](double x) { return static_cast<float>(x); };
    return {.kind = p_.kind,
            .momentum = p_.state_count() == 1,
            .first = now.step == 0,
            .nesterov = p_.nesterov,
            .lr = double{now.lr},
            .bias1 = 1 - std::pow(p_.beta1, t),
            .clip = clip,
            .ema_gain = now.ema_gain,
            .sgd_momentum = f32(p_.momentum),
            .sgd_gain = f32(1 - p_.dampening),
            .adam_gain1 = f32(1 - p_.beta1),
            .adam_keep2 = f32(p_.beta2),
            .adam_gain2 = f32(1 - p_.beta2),
            .eps = f32(p_.eps),
            .invroot = f32(1 / std::sqrt(1 - std::pow(p_.beta2, t)))};
  }

  OptimizerParams p_;
  int threads_;
  std::vector<LiveSegment> live_;
  int64_t units_ = 0;
};

}  // namespace

void add_optimizer_simd(Registry& r) {
  const BitExact all{.threads = true, .shard = true};
  r.add({"grad_norm", "simd", Device::cpu, LayoutClass::plain, DType::f32, all,
         [](const KernelRequest& q) { return std::make_unique<GradNorm>(q); }});
  for (DType dtype : {DType::f32, DType::bf16})  // bf16: with the copy
    r.add({"optimizer_step", "simd", Device::cpu, LayoutClass::plain, dtype, all,
           [dtype](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             if (q.params.as<OptimizerParams>().half != (dtype == DType::bf16)) return nullptr;
             return std::make_unique<Step>(q);
           }});
}

}  // namespace lockstep
#endif
