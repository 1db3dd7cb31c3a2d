// SPDX-License-Identifier: Apache-2.0
// The interpreter: each step is a vector loop over a tile that stays in the L1 cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include "kernels/simd/vector-inl.h"

#include <algorithm>

#include "kernels/core/activation.h"
#include "kernels/core/parallel.h"
#include "kernels/elementwise/kernels.h"
#include "kernels/elementwise/math-inl.h"
#include "kernels/elementwise/program.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::elementwise {
namespace HWY_NAMESPACE {

constexpr int64_t kTile = 1024;  // floats of a slot: 4 KB

// f(tag, a, b) over [0, n). The last numbers are a vector filled up with zeros: their bits are those of any
// other position's.
template <bool kBinary, class F>
HWY_INLINE void loop(const float* a, const float* b, float* to, int64_t n, F f) {
  const hn::ScalableTag<float> d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    const auto va = hn::LoadU(d, a + i);
    hn::StoreU(f(d, va, kBinary ? hn::LoadU(d, b + i) : va), d, to + i);
  }
  if (i == n) return;
  HWY_ALIGN float last[3][hn::MaxLanes(d)] = {};
  std::copy(a + i, a + n, last[0]);
  if (kBinary) std::copy(b + i, b + n, last[1]);
  const auto va = hn::Load(d, last[0]);
  hn::Store(f(d, va, kBinary ? hn::Load(d, last[1]) : va), d, last[2]);
  std::copy(last[2], last[2] + (n - i), to + i);
}

#define LOCKSTEP_UNARY(expression)                              \
  loop<false>(a, b, to, n, [&](auto d, auto x, auto) HWY_ATTR { \
    (void)d;                                                    \
    return expression;                                          \
  });                                                           \
  break
#define LOCKSTEP_BINARY(expression)                              \
  loop<true>(a, b, to, n, [&](auto d, auto x, auto y) HWY_ATTR { \
    (void)d;                                                     \
    return expression;                                           \
  });                                                            \
  break

template <class D, class V>
HWY_INLINE V silu_grad(D d, V x, V dy) {
  const auto l = logistic(d, x);
  return hn::Mul(dy, hn::Mul(l.s, hn::MulAdd(x, l.rest, hn::Set(d, 1.0f))));
}

void run_step(Elt op, float imm, const float* a, const float* b, float* to, int64_t n) {
  switch (op) {
    case Elt::copy:
      if (a != to) std::copy(a, a + n, to);
      break;
    case Elt::relu:
      LOCKSTEP_UNARY(hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x));
    case Elt::silu:
      LOCKSTEP_UNARY(hn::Mul(x, logistic(d, x).s));
    case Elt::gelu:
      LOCKSTEP_UNARY(hn::Mul(x, normal(d, x).cdf));
    case Elt::quick_gelu:
      LOCKSTEP_UNARY(hn::Mul(x, logistic(d, hn::Mul(x, hn::Set(d, kQuickGelu))).s));
    case Elt::tanh:
      LOCKSTEP_UNARY(tanh(d, x));
    case Elt::sigmoid:
      LOCKSTEP_UNARY(logistic(d, x).s);
    case Elt::scale:
      LOCKSTEP_UNARY(hn::Mul(x, hn::Set(d, imm)));
    case Elt::add_imm:
      LOCKSTEP_UNARY(hn::Add(x, hn::Set(d, imm)));
    case Elt::add:
      LOCKSTEP_BINARY(hn::Add(x, y));
    case Elt::sub:
      LOCKSTEP_BINARY(hn::Sub(x, y));
    case Elt::mul:
      LOCKSTEP_BINARY(hn::Mul(x, y));
    case Elt::relu_grad:
      LOCKSTEP_BINARY(hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), y));
    case Elt::silu_grad:
      LOCKSTEP_BINARY(silu_grad(d, x, y));
    case Elt::gelu_grad:
      LOCKSTEP_BINARY(hn::Mul(y, gelu_slope(d, x, normal(d, x))));
    case Elt::quick_gelu_grad:
      LOCKSTEP_BINARY(silu_grad(d, hn::Mul(x, hn::Set(d, kQuickGelu)), y));
    case Elt::tanh_grad:
      LOCKSTEP_BINARY(hn::Mul(y, hn::Sub(hn::Set(d, 1.0f), hn::Mul(x, x))));
    case Elt::sigmoid_grad:
      LOCKSTEP_BINARY(hn::Mul(hn::Mul(y, x), hn::Sub(hn::Set(d, 1.0f), x)));
  }
}

// Numbers [begin, end) of every tensor.
void run_range(const Program& p, const KernelArgs& args, int64_t begin, int64_t end) {
  HWY_ALIGN float slots[kMaxSlots][kTile];  // only the first p.slots are touched
  // A single step runs through; several share tiles.
  const int64_t tile = p.steps.size() == 1 ? end - begin : kTile;
  for (int64_t i = begin; i < end; i += tile) {
    const auto at = [&](Place place) -> float* {
      const auto index = static_cast<size_t>(place.index);
      switch (place.kind) {
        case Place::Kind::input:
          return args.in[index].as<float>() + i;
        case Place::Kind::output:
          return args.out[index].as<float>() + i;
        case Place::Kind::slot:
          return slots[index];
      }
      return nullptr;
    };
    for (const Step& s : p.steps) run_step(s.op, s.imm, at(s.a), at(s.b), at(s.to), std::min(tile, end - i));
  }
}

// The same for bf16 tensors: a tile of each stands in floats, those of the inputs before any output is
// stored.
void run_range_bf16(const Program& p, const KernelArgs& args, int64_t begin, int64_t end) {
  namespace vec = lockstep::HWY_NAMESPACE;
  constexpr int64_t kStep = vec::kVec;
  HWY_ALIGN float slots[kMaxSlots][kTile], inputs[kMaxSlots][kTile], outputs[kMaxSlots][kTile];
  const auto at = [&](Place place) {
    const auto index = static_cast<size_t>(place.index);
    return place.kind == Place::Kind::input    ? inputs[index]
           : place.kind == Place::Kind::output ? outputs[index]
                                               : slots[index];
  };
  for (int64_t i = begin; i < end; i += kTile) {
    const int64_t n = std::min(kTile, end - i);
    for (size_t k = 0; k < args.in.size(); ++k)
      for (int64_t j = 0; j < n; j += kStep)
        vec::store(vec::load(args.in[k].as<bf16>() + i + j, n - j), inputs[k] + j, n - j);
    for (const Step& s : p.steps) run_step(s.op, s.imm, at(s.a), at(s.b), at(s.to), n);
    for (size_t k = 0; k < args.out.size(); ++k)
      for (int64_t j = 0; j < n; j += kStep)
        vec::store(vec::load(outputs[k] + j, n - j), args.out[k].as<bf16>() + i + j, n - j);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::elementwise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::elementwise {
namespace {

HWY_EXPORT(run_range);
HWY_EXPORT(run_range_bf16);

constexpr int64_t kGrain = 8192 / kLanes;  // groups of 16 numbers that a thread should have at least

class Interpreter final : public Kernel {
 public:
  Interpreter(const ElementwiseParams& p, int threads) : program_(compile(p)), threads_(threads) {
    LOCKSTEP_ASSERT(program_.slots <= kMaxSlots, "{}", p.text());
  }

  void run(const KernelArgs& args) override {
    const TensorSpec& x = args.in[0].spec;
    const int64_t n = x.stored_elements();
    const auto work =
        x.dtype == DType::bf16 ? HWY_DYNAMIC_DISPATCH(run_range_bf16) : HWY_DYNAMIC_DISPATCH(run_range);
    parallel_ranges((n + kLanes - 1) / kLanes, threads_, kGrain, [&](int64_t begin, int64_t end) {
      work(program_, args, begin * kLanes, std::min(end * kLanes, n));
    });
  }

 private:
  Program program_;
  int threads_;
};

}  // namespace

void register_highway(Registry& r) {
  for (DType dtype : {DType::f32, DType::bf16})
    r.add({.op = "elementwise",
           .name = "highway",
           .layout = LayoutClass::any,
           .dtype = dtype,
           .bit_exact = {.threads = true, .shard = true},
           .make = [](const KernelRequest& request) -> std::unique_ptr<Kernel> {
             check(request);
             return std::make_unique<Interpreter>(request.params.as<ElementwiseParams>(), request.threads);
           }});
}

}  // namespace lockstep::elementwise
#endif
