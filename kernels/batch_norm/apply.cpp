// SPDX-License-Identifier: Apache-2.0
// Batch norm's elementwise passes: batch_norm_apply, batch_norm_eval and batch_norm_input_grad.
//
// Each is first folded into a few coefficients a channel, in double; then z = (x - mean) * scale + shift, or
// dx = (dz * scale - shift) - (x - mean) * slope. The mean is subtracted first: folding it into the shift
// would cancel where it is large. No fma, so all instruction sets give equal bits.
#include <cmath>

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/batch_norm/geometry.h"
#include "kernels/core/kernel.h"
#include "kernels/core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batch_norm/apply.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include "kernels/simd/activate-inl.h"
#include "kernels/simd/columns-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {

// What normalize16 and normalize_rows do before they store (columns-inl.h).
struct Relu {
  HWY_INLINE Vec operator()(Vec z, int64_t, int64_t) const { return activate(Floats(), Activation::relu, z); }
};
template <class T>
struct Added {
  const T* r;
  HWY_INLINE Vec operator()(Vec z, int64_t at, int64_t left) const { return hn::Add(z, load(r + at, left)); }
};
template <class T>
struct AddedRelu {
  Added<T> added;
  HWY_INLINE Vec operator()(Vec z, int64_t at, int64_t left) const {
    return activate(Floats(), Activation::relu, added(z, at, left));
  }
};

// after_at(offset): what follows from there on. Columns: rows [begin, end); else runs [begin, end).
template <class T, class F>
void normalize(const BatchNormGeometry& g, const T* x, T* y, const Normalize& of, F after_at, int64_t begin,
               int64_t end) {
  if (g.columns) {
    const int64_t at = begin * g.c;
    return normalize_rows(x + at, y + at, end - begin, g.c, of, after_at(at));
  }
  HWY_ALIGN float mean[kLanes], scale[kLanes], shift[kLanes];
  const int64_t length = g.run_length();
  for (int64_t run = begin; run < end; ++run) {
    const int64_t c = run % g.c;
    std::fill_n(mean, kLanes, of.mean[c]);
    std::fill_n(scale, kLanes, of.scale[c]);
    std::fill_n(shift, kLanes, of.shift[c]);
    const int64_t at = run * length;
    normalize16(x + at, y + at, length, {mean, scale, shift}, after_at(at));
  }
}

template <class T>
void normalize(const BatchNormGeometry& g, const T* x, const T* r, bool relu, T* y, const Normalize& of,
               int64_t begin, int64_t end) {
  const auto run = [&](auto after_at) { normalize(g, x, y, of, after_at, begin, end); };
  if (r && relu) return run([=](int64_t at) { return AddedRelu<T>{{r + at}}; });
  if (r) return run([=](int64_t at) { return Added<T>{r + at}; });
  if (relu) return run([](int64_t) { return Relu(); });
  run([](int64_t) { return AsTheyAre(); });
}

// beta: of the norm that relu follows, else null.
template <class T>
void normalize_grad(const BatchNormGeometry& g, const T* x, const T* dy, const float* beta, T* dx,
                    const NormalizeGrad& of, int64_t begin, int64_t end) {
  if (g.columns) {
    const int64_t at = begin * g.c, rows = end - begin;
    return beta ? normalize_grad_rows(x + at, dy + at, dx + at, rows, g.c, of, ThroughRelu{of.scale, beta})
                : normalize_grad_rows(x + at, dy + at, dx + at, rows, g.c, of);
  }
  HWY_ALIGN float mean[kLanes], scale[kLanes], shift[kLanes], slope[kLanes], betas[kLanes];
  const int64_t length = g.run_length();
  for (int64_t run = begin; run < end; ++run) {
    const int64_t c = run % g.c, at = run * length;
    const int64_t used = g.lanes ? g.lanes_used(run) : kLanes;
    std::fill_n(mean, kLanes, of.mean[c]);
    for (auto [to, from] : {std::pair{scale, of.scale}, {shift, of.shift}, {slope, of.slope}}) {
      std::fill_n(to, used, from[c]);
      std::fill_n(to + used, kLanes - used, 0.0f);  // padding lanes get 0
    }
    const NormalizeGrad here{mean, scale, shift, slope};
    if (beta) {
      std::fill_n(betas, kLanes, beta[c]);
      normalize_grad16(x + at, dy + at, dx + at, length, here, ThroughRelu{scale, betas});
    } else {
      normalize_grad16(x + at, dy + at, dx + at, length, here);
    }
  }
}

// r: what is added, or of no data.
void batch_norm_normalize(const BatchNormGeometry& g, const View& x, const View& r, bool relu, const View& y,
                          const Normalize& of, int64_t begin, int64_t end) {
  if (x.spec.dtype == DType::bf16)
    normalize(g, x.as<const bf16>(), r.as<const bf16>(), relu, y.as<bf16>(), of, begin, end);
  else
    normalize(g, x.as<const float>(), r.as<const float>(), relu, y.as<float>(), of, begin, end);
}

void batch_norm_normalize_grad(const BatchNormGeometry& g, const View& x, const View& dy, const float* beta,
                               const View& dx, const NormalizeGrad& of, int64_t begin, int64_t end) {
  if (x.spec.dtype == DType::bf16)
    normalize_grad(g, x.as<const bf16>(), dy.as<const bf16>(), beta, dx.as<bf16>(), of, begin, end);
  else
    normalize_grad(g, x.as<const float>(), dy.as<const float>(), beta, dx.as<float>(), of, begin, end);
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {
namespace {

HWY_EXPORT(batch_norm_normalize);
HWY_EXPORT(batch_norm_normalize_grad);

constexpr int64_t kGrain = 16384;  // elements that are worth a thread

enum class Pass { apply, eval, input_grad };

// Without what may be added, or what relu's gradient asks for.
size_t inputs(Pass pass) { return pass == Pass::apply ? 4 : 5; }

bool served(Pass pass, const KernelRequest& q, Layout layout, DType dtype) {
  const auto image = [&](const TensorSpec& s) { return s.layout == layout && s.dtype == dtype; };
  const Activation a = q.params.as<BatchNormParams>().activation;
  if ((a != Activation::none && a != Activation::relu) || !image(q.in[0]) || !image(q.out[0])) return false;
  if (pass == Pass::input_grad) return image(q.in[1]);
  return q.in.size() == inputs(pass) || image(q.in[inputs(pass)]);
}

class Elementwise final : public Kernel {
 public:
  Elementwise(Pass pass, const KernelRequest& r)
      : pass_(pass),
        eps_(double{r.params.as<BatchNormParams>().eps}),
        relu_(r.params.as<BatchNormParams>().activation == Activation::relu),
        g_(r.in[0]),
        threads_(r.threads) {}
  int64_t workspace_bytes() const override { return 4 * g_.c * static_cast<int64_t>(sizeof(float)); }

  void run(const KernelArgs& args) override {
    float* ws = static_cast<float*>(args.workspace);
    float *mean = ws, *scale = ws + g_.c, *shift = ws + 2 * g_.c, *slope = ws + 3 * g_.c;
    for (int64_t c = 0; c < g_.c; ++c) {
      if (pass_ == Pass::eval) {
        mean[c] = args.in[1].as<float>()[c];
        const double invstd = 1 / std::sqrt(double{args.in[2].as<float>()[c]} + eps_);
        scale[c] = static_cast<float>(double{args.in[3].as<float>()[c]} * invstd);
        shift[c] = args.in[4].as<float>()[c];
        continue;
      }
      const bool grad = pass_ == Pass::input_grad;
      const float* stats = args.in[grad ? 2 : 1].as<float>() + c;
      const float gamma = args.in[grad ? 3 : 2].as<float>()[c], invstd = stats[3 * g_.c];
      mean[c] = stats[g_.c];
      scale[c] = batch_norm_scale(gamma, invstd);
      if (grad) {
        const float* sums = args.in[4].as<float>() + c;
        const double count = double{stats[0]}, factor = double{gamma} * double{invstd};
        shift[c] = static_cast<float>(factor * (double{sums[0]} / count));
        slope[c] = static_cast<float>(factor * double{invstd} * (double{sums[g_.c]} / count));
      } else {
        shift[c] = args.in[3].as<float>()[c];
      }
    }
    const View &x = args.in[0], &out = args.out[0];
    const size_t residual = inputs(pass_);
    const View r = args.in.size() > residual ? args.in[residual] : View();
    const float* beta = relu_ && pass_ == Pass::input_grad ? args.in[5].as<float>() : nullptr;
    const auto forward = HWY_DYNAMIC_DISPATCH(batch_norm_normalize);
    const auto backward = HWY_DYNAMIC_DISPATCH(batch_norm_normalize_grad);
    const int64_t items = g_.columns ? g_.n * g_.hw : g_.runs();
    const int64_t each = g_.columns ? g_.c : g_.run_length();
    parallel_ranges(items, threads_, kGrain / std::max<int64_t>(each, 1), [&](int64_t begin, int64_t end) {
      if (pass_ == Pass::input_grad)
        backward(g_, x, args.in[1], beta, out, {mean, scale, shift, slope}, begin, end);
      else
        forward(g_, x, r, relu_, out, {mean, scale, shift}, begin, end);
    });
  }

 private:
  Pass pass_;
  double eps_;
  bool relu_;
  BatchNormGeometry g_;
  int threads_;
};

}  // namespace

void add_batch_norm_elementwise(Registry& r) {
  const auto add = [&](const char* op, Pass pass, Layout layout, LayoutClass of) {
    for (DType dtype : {DType::f32, DType::bf16})
      r.add({op,
             name(layout),
             Device::cpu,
             of,
             dtype,
             {.threads = true, .shard = true},
             [=](const KernelRequest& q) -> std::unique_ptr<Kernel> {
               return served(pass, q, layout, dtype) ? std::make_unique<Elementwise>(pass, q) : nullptr;
             }});
  };
  for (auto [layout, of] : {std::pair{Layout::lanes, LayoutClass::lanes},
                            {Layout::plain, LayoutClass::plain},
                            {Layout::nhwc, LayoutClass::nhwc}}) {
    add("batch_norm_apply", Pass::apply, layout, of);
    add("batch_norm_eval", Pass::eval, layout, of);
    add("batch_norm_input_grad", Pass::input_grad, layout, of);
  }
}

}  // namespace lockstep
#endif
