// SPDX-License-Identifier: Apache-2.0
// The header's formulas in double, rounded to f32 where a result is stored.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/core/bf16.h"
#include "kernels/core/kernel.h"
#include "kernels/core/step_state.h"
#include "kernels/optimizer/optimizer.h"

namespace lockstep {
namespace {

using Kind = OptimizerParams::Kind;

void grad_norm(const OptimizerParams& p, const KernelArgs& args) {
  const float* g = args.in[0].as<float>();
  double sum = 0;
  for (const auto& s : p.segments)
    for (int64_t i = s.begin; i < s.end && !s.frozen; ++i) sum += double{g[i]} * double{g[i]};
  args.out[0].as<float>()[0] = static_cast<float>(std::sqrt(sum));
}

double sgd(const OptimizerParams& p, const StepState& now, double lr, double g, double x, float* momentum) {
  if (momentum != nullptr) {
    const double buf = now.step == 0 ? g : p.momentum * double{*momentum} + (1 - p.dampening) * g;
    *momentum = static_cast<float>(buf);
    g = p.nesterov ? g + p.momentum * buf : buf;
  }
  return x - lr * g;
}

double adam(const OptimizerParams& p, const StepState& now, double lr, double g, double x, float* m,
            float* v) {
  const double t = static_cast<double>(now.step + 1);
  const double m1 = double{*m} + (1 - p.beta1) * (g - double{*m});
  const double v1 = p.beta2 * double{*v} + (1 - p.beta2) * g * g;
  *m = static_cast<float>(m1);
  *v = static_cast<float>(v1);
  const double root = std::sqrt(v1) / std::sqrt(1 - std::pow(p.beta2, t));
  return x - lr / (1 - std::pow(p.beta1, t)) * m1 / (root + p.eps);
}

void step(const OptimizerParams& p, const KernelArgs& args) {
  for (size_t i = 0; i < args.out.size(); ++i) {
    const View& from = args.in[i == 0 ? 0 : i + 4];
    if (from.data != args.out[i].data)
      std::memcpy(args.out[i].data, from.data, static_cast<size_t>(from.spec.bytes()));
  }
  if (!std::isfinite(args.in[3].as<float>()[0])) return;
  float* params = args.out[0].as<float>();
  float* state[2] = {};
  for (int i = 0; i < p.state_count(); ++i) state[i] = args.out[static_cast<size_t>(i) + 1].as<float>();
  float* ema = p.ema ? args.out[p.ema_output()].as<float>() : nullptr;
  bf16* half = p.half ? args.out[p.half_output()].as<bf16>() : nullptr;
  const float* grads = args.in[1].as<float>();
  const StepState& now = *args.in[2].as<StepState>();
  double clip = 1;
  if (p.clip_norm > 0) {
    const double c = p.clip_norm / (double{args.in[4].as<float>()[0]} + 1e-6);
    clip = c > 1 ? 1 : c;  // NaN stays
  }
  for (const auto& s : p.segments) {
    if (s.frozen) continue;
    const double lr = double{now.lr} * s.lr_scale;
    for (int64_t i = s.begin; i < s.end; ++i) {
      double x = double{params[i]}, g = double{grads[i]} * clip;
      if (p.kind == Kind::adamw)
        x *= 1 - lr * s.weight_decay;
      else if (s.weight_decay != 0)
        g += s.weight_decay * x;
      params[i] =
          static_cast<float>(p.kind == Kind::sgd ? sgd(p, now, lr, g, x, state[0] ? state[0] + i : nullptr)
                                                 : adam(p, now, lr, g, x, state[0] + i, state[1] + i));
      if (ema)
        ema[i] = static_cast<float>(ema[i] - double{now.ema_gain} * (double{ema[i]} - double{params[i]}));
      if (half) half[i] = bf16(params[i]);
    }
  }
}

}  // namespace

void add_optimizer_reference(Registry& r) {
  const BitExact all{.threads = true, .shard = true};  // no batch here, one thread
  r.add({"grad_norm", "reference", Device::cpu, LayoutClass::any, DType::f32, all,
         stateless<OptimizerParams>(grad_norm)});
  for (DType dtype : {DType::f32, DType::bf16})  // bf16: with the copy
    r.add({"optimizer_step", "reference", Device::cpu, LayoutClass::any, dtype, all,
           [dtype](const KernelRequest& q) -> std::unique_ptr<Kernel> {
             if (q.params.as<OptimizerParams>().half != (dtype == DType::bf16)) return nullptr;
             return stateless<OptimizerParams>(step)(q);
           }});
}

}  // namespace lockstep
