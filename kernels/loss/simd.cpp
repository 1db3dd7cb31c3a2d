// SPDX-License-Identifier: Apache-2.0
// log_softmax, cross_entropy and their gradients with Highway, in the lanes and the plain layout.
#include <algorithm>
#include <cmath>

#include "kernels/core/kernel.h"
#include "kernels/core/parallel.h"
#include "kernels/core/step_state.h"
#include "kernels/loss/loss.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/loss/simd.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/loss/softmax-inl.h"

#ifndef LOCKSTEP_LOSS_SIMD_ONCE
#define LOCKSTEP_LOSS_SIMD_ONCE
namespace lockstep {

struct LossGeometry {
  int64_t n, classes;
  bool lanes;
  explicit LossGeometry(const TensorSpec& x)
      : n(x.shape[0]), classes(x.shape[1]), lanes(x.layout == Layout::lanes) {}
  int64_t units() const { return lanes ? (n + kLanes - 1) / kLanes : n; }  // blocks or samples
  int64_t unit_elements() const { return classes * (lanes ? kLanes : 1); }
  int64_t used(int64_t block) const { return std::min<int64_t>(kLanes, n - block * kLanes); }
};

struct LossTarget {
  bool from_log_probs, smooths;
  float label, each;  // what is added for the label, and for every class
  LossTarget(const LossParams& p, int64_t classes)
      : from_log_probs(p.from_log_probs),
        smooths(p.label_smoothing != 0),
        label(1 - p.label_smoothing),
        each(static_cast<float>(double{p.label_smoothing} / static_cast<double>(classes))) {}
};

struct SampleLoss {
  float loss, correct;
};

}  // namespace lockstep
#endif

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

void loss_log_softmax(const LossGeometry& g, const float* x, float* y, int64_t begin, int64_t end) {
  const Floats d;
  for (int64_t unit = begin; unit < end; ++unit) {
    const float* px = x + unit * g.unit_elements();
    float* py = y + unit * g.unit_elements();
    if (!g.lanes) {
      const RowMaximum m = row_maximum(px, g.classes);
      const float log_sum = std::log(row_sum_exp(px, g.classes, m, nullptr));
      for (int64_t c = 0; c < g.classes; c += kVec) {
        const int64_t n = g.classes - c;
        store(hn::Sub(hn::Sub(load(px + c, n), set(m.most)), set(log_sum)), py + c, n);
      }
      continue;
    }
    for (int v = 0; v < kLanes / kVec; ++v) {
      const int at = v * kVec;
      const LanesMaximum m = lanes_maximum(px + at, g.classes);
      const Vec sum = lanes_sum_exp(px + at, g.classes, m, nullptr);
      const Vec log_sum = hn::IfThenElse(hn::Eq(sum, sum), hn::Log(d, sum), sum);
      const Mask used = lanes_used(v, g.used(unit));
      for (int64_t i = at; i < g.unit_elements(); i += kLanes) {
        const Vec r = hn::Sub(hn::Sub(hn::LoadU(d, px + i), m.most), log_sum);
        hn::StoreU(hn::IfThenElseZero(used, r), d, py + i);
      }
    }
  }
}

void loss_log_softmax_grad(const LossGeometry& g, const float* y, const float* dy, float* dx, int64_t begin,
                           int64_t end) {
  const Floats d;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t offset = unit * g.unit_elements();
    if (!g.lanes) {
      const Vec sum = set(row_sum(dy + offset, g.classes, 0));
      for (int64_t c = 0; c < g.classes; c += kVec) {
        const int64_t i = offset + c, n = g.classes - c;
        store(hn::Sub(load(dy + i, n), hn::Mul(exp_of(load(y + i, n)), sum)), dx + i, n);
      }
      continue;
    }
    for (int v = 0; v < kLanes / kVec; ++v) {
      const int64_t first = offset + v * kVec, last = offset + g.unit_elements();
      Vec sum = hn::Zero(d);
      for (int64_t i = first; i < last; i += kLanes) sum = hn::Add(sum, hn::LoadU(d, dy + i));
      const Mask used = lanes_used(v, g.used(unit));
      for (int64_t i = first; i < last; i += kLanes) {
        const Vec r = hn::Sub(hn::LoadU(d, dy + i), hn::Mul(exp_of(hn::LoadU(d, y + i)), sum));
        hn::StoreU(hn::IfThenElseZero(used, r), d, dx + i);
      }
    }
  }
}

inline SampleLoss row_loss(const float* x, int64_t classes, int32_t label, const LossTarget& t) {
  const RowMaximum m = row_maximum(x, classes);
  const float center = t.from_log_probs ? 0 : m.most;
  float loss = t.from_log_probs ? 0 : std::log(row_sum_exp(x, classes, m, nullptr));
  if (t.label != 0) loss -= t.label * (x[label] - center);
  if (t.smooths) loss -= t.each * row_sum(x, classes, center);
  bool earlier = false;
  for (int32_t c = 0; c < label; ++c) earlier |= x[c] == m.most;
  return {loss, !m.any_nan && x[label] == m.most && !earlier ? 1.0f : 0.0f};
}

// out: one for each sample, in the lanes layout for each lane.
void loss_cross_entropy(const LossGeometry& g, const LossTarget& t, const float* x, const int32_t* labels,
                        SampleLoss* out, int64_t begin, int64_t end) {
  const Floats d;
  for (int64_t unit = begin; unit < end; ++unit) {
    const float* px = x + unit * g.unit_elements();
    if (!g.lanes) {
      out[unit] = row_loss(px, g.classes, labels[unit], t);
      continue;
    }
    HWY_ALIGN float label[kLanes] = {}, losses[kLanes], correct[kLanes];
    for (int64_t j = 0; j < g.used(unit); ++j) label[j] = static_cast<float>(labels[unit * kLanes + j]);
    for (int v = 0; v < kLanes / kVec; ++v) {
      const float* first = px + v * kVec;
      const Vec wanted = hn::Load(d, label + v * kVec);
      const LanesMaximum m = lanes_maximum(first, g.classes);
      Vec loss = hn::Zero(d), center = hn::Zero(d);
      if (!t.from_log_probs) {
        center = m.most;
        const Vec sum = lanes_sum_exp(first, g.classes, m, nullptr);
        loss = hn::IfThenElse(hn::Eq(sum, sum), hn::Log(d, sum), sum);
      }
      Vec at_label = hn::Zero(d), all = hn::Zero(d);
      for (int64_t c = 0; c < g.classes; ++c) {
        const Vec r = hn::Sub(hn::LoadU(d, first + c * kLanes), center);
        at_label = hn::IfThenElse(hn::Eq(wanted, set(static_cast<float>(c))), r, at_label);
        all = hn::Add(all, r);
      }
      if (t.label != 0) loss = hn::Sub(loss, hn::Mul(set(t.label), at_label));
      if (t.smooths) loss = hn::Sub(loss, hn::Mul(set(t.each), all));
      hn::Store(loss, d, losses + v * kVec);
      const Vec hit = hn::IfThenElseZero(hn::Eq(m.where, wanted), set(1));
      hn::Store(hn::IfThenElse(m.any_nan, hn::Zero(d), hit), d, correct + v * kVec);
    }
    for (int j = 0; j < kLanes; ++j) out[unit * kLanes + j] = {losses[j], correct[j]};
  }
}

// dx = scale * (softmax - target); the exponentials wait in dx for their sum.
void loss_cross_entropy_grad(const LossGeometry& g, const LossTarget& t, const float* x,
                             const int32_t* labels, float scale, float* dx, int64_t begin, int64_t end) {
  const Floats d;
  const Vec each = set(t.each * scale);
  for (int64_t unit = begin; unit < end; ++unit) {
    const float* px = x + unit * g.unit_elements();
    float* pdx = dx + unit * g.unit_elements();
    if (!g.lanes) {
      Vec factor = hn::Zero(d);
      if (!t.from_log_probs)
        factor = set(scale / row_sum_exp(px, g.classes, row_maximum(px, g.classes), pdx));
      else
        std::fill_n(pdx, g.classes, 0.0f);
      for (int64_t c = 0; c < g.classes; c += kVec) {
        const int64_t n = g.classes - c;
        store(hn::Sub(hn::Mul(load(pdx + c, n), factor), each), pdx + c, n);
      }
      pdx[labels[unit]] -= t.label * scale;
      continue;
    }
    for (int v = 0; v < kLanes / kVec; ++v) {
      const int at = v * kVec;
      const Mask used = lanes_used(v, g.used(unit));
      Vec factor = hn::Zero(d);
      if (!t.from_log_probs) {
        const Vec sum = lanes_sum_exp(px + at, g.classes, lanes_maximum(px + at, g.classes), pdx + at);
        factor = hn::Div(set(scale), sum);
      }
      for (int64_t i = at; i < g.unit_elements(); i += kLanes) {
        const Vec softmax = t.from_log_probs ? hn::Zero(d) : hn::Mul(hn::LoadU(d, pdx + i), factor);
        hn::StoreU(hn::IfThenElseZero(used, hn::Sub(softmax, each)), d, pdx + i);
      }
    }
    for (int64_t j = 0; j < g.used(unit); ++j) pdx[labels[unit * kLanes + j] * kLanes + j] -= t.label * scale;
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {
namespace {

HWY_EXPORT(loss_log_softmax);
HWY_EXPORT(loss_log_softmax_grad);
HWY_EXPORT(loss_cross_entropy);
HWY_EXPORT(loss_cross_entropy_grad);

template <class F>
void for_units(const LossGeometry& g, int threads, F f) {
  constexpr int64_t kGrain = 4096;  // exponentials that are worth a thread
  parallel_ranges(g.units(), threads, kGrain / std::max<int64_t>(1, g.unit_elements()), f);
}

void log_softmax(const NoParams&, const KernelArgs& args, int threads) {
  const LossGeometry g(args.in[0].spec);
  const auto f = HWY_DYNAMIC_DISPATCH(loss_log_softmax);
  for_units(g, threads, [&](int64_t begin, int64_t end) {
    f(g, args.in[0].as<float>(), args.out[0].as<float>(), begin, end);
  });
}

void log_softmax_grad(const NoParams&, const KernelArgs& args, int threads) {
  const LossGeometry g(args.in[0].spec);
  const auto f = HWY_DYNAMIC_DISPATCH(loss_log_softmax_grad);
  for_units(g, threads, [&](int64_t begin, int64_t end) {
    f(g, args.in[0].as<float>(), args.in[1].as<float>(), args.out[0].as<float>(), begin, end);
  });
}

void cross_entropy_grad(const LossParams& p, const KernelArgs& args, int threads) {
  const LossGeometry g(args.in[0].spec);
  const LossTarget target(p, g.classes);
  const double samples = static_cast<double>(args.in[2].as<StepState>()->global_samples);
  const auto f = HWY_DYNAMIC_DISPATCH(loss_cross_entropy_grad);
  for_units(g, threads, [&](int64_t begin, int64_t end) {
    f(g, target, args.in[0].as<float>(), args.in[1].as<int32_t>(), static_cast<float>(1 / samples),
      args.out[0].as<float>(), begin, end);
  });
}

class CrossEntropy final : public Kernel {
 public:
  explicit CrossEntropy(const KernelRequest& r)
      : g_(r.in[0]), target_(r.params.as<LossParams>(), g_.classes), threads_(r.threads) {}
  int64_t workspace_bytes() const override {
    return g_.units() * (g_.lanes ? kLanes : 1) * static_cast<int64_t>(sizeof(SampleLoss));
  }
  void run(const KernelArgs& args) override {
    SampleLoss* samples = static_cast<SampleLoss*>(args.workspace);
    const auto f = HWY_DYNAMIC_DISPATCH(loss_cross_entropy);
    for_units(g_, threads_, [&](int64_t begin, int64_t end) {
      f(g_, target_, args.in[0].as<float>(), args.in[1].as<int32_t>(), samples, begin, end);
    });
    double loss = 0, correct = 0;
    for (int64_t n = 0; n < g_.n; ++n) {
      loss += double{samples[n].loss};
      correct += double{samples[n].correct};
    }
    args.out[0].as<float>()[0] = static_cast<float>(loss);
    args.out[0].as<float>()[1] = static_cast<float>(correct);
  }

 private:
  LossGeometry g_;
  LossTarget target_;
  int threads_;
};

}  // namespace

void add_loss_simd(Registry& r) {
  for (auto [layout, of] :
       {std::pair{Layout::lanes, LayoutClass::lanes}, {Layout::plain, LayoutClass::plain}}) {
    const auto add = [&, l = layout, o = of](const char* op, BitExact bits, auto make) {
      r.add({op, name(l), Device::cpu, o, DType::f32, bits,
             [l, make](const KernelRequest& q) -> std::unique_ptr<Kernel> {
               return q.in[0].layout == l && q.in[0].dtype == DType::f32 ? make(q) : nullptr;
             }});
    };
    const BitExact per_sample{.threads = true, .shard = true};
    add("log_softmax", per_sample, stateless<NoParams>(log_softmax));
    add("log_softmax_grad", per_sample, stateless<NoParams>(log_softmax_grad));
    // The sum of losses is rounded once a rank, so a cut of the batch shows in its last bit.
    add("cross_entropy", {.threads = true, .shard = false},
        [](const KernelRequest& q) -> std::unique_ptr<Kernel> { return std::make_unique<CrossEntropy>(q); });
    add("cross_entropy_grad", per_sample, stateless<LossParams>(cross_entropy_grad));
  }
}

}  // namespace lockstep
#endif
