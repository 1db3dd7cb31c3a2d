// SPDX-License-Identifier: Apache-2.0
// Optimizers over flat arrays: all parameters of a model in one pass.
//
// Op (both take OptimizerParams)
//   grad_norm         in:  grads
//                     out: norm [1] = sqrt of the sum of squares over all segments that are not frozen,
//                          carried in double over fixed-size chunks added in order
//   optimizer_step    in:  params, grads, step_state, metrics, norm, state..., ema, half
//                     out: params, state..., ema, half (normally the inputs' buffers: in place; else stepped
//                     copies)
// params, grads, state, ema: flat f32 [length] plain. half: flat bf16 [length] plain.
// metrics [>= 1] f32: where element 0 (the global loss sum) is not finite the step changes nothing.
// norm [1]: read only where clip_norm > 0; a NaN norm gives NaN parameters, as PyTorch's clipping does.
// state: none (sgd without momentum), momentum (sgd), m and v (adam, adamw).
// ema, where `ema` is set: the parameters' moving average. half, where `half` is set: the parameters rounded
// to bf16.
// A segment covers elements [begin, end) of the flat arrays; segments don't overlap. Gaps between them
// (alignment) and frozen segments are left alone, and so are their state, average and bf16 copy.
//
// With g = grad * min(1, clip_norm / (norm + 1e-6)) where clip_norm > 0 (PyTorch's clip_grad_norm_),
// lr = StepState.lr * lr_scale, t = StepState.step + 1:
//   sgd    g += wd * p; first step: buf = g, then buf = momentum * buf + (1 - dampening) * g;
//          g = nesterov ? g + momentum * buf : buf;  p -= lr * g              (PyTorch's SGD)
//   adam   g += wd * p; m += (1-b1) (g - m); v = b2 v + (1-b2) g^2;           (Kingma, Ba: arXiv 1412.6980)
//          p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//   adamw  p *= 1 - lr * wd, then as adam without the decay         (Loshchilov, Hutter: arXiv 1711.05101)
// and then, p being the new parameter:
//   ema    ema -= StepState.ema_gain * (ema - p)            (EMAModel.step in Hugging Face's diffusers)
// Terms whose factor is zero (wd, momentum) are left out, as PyTorch leaves them out.
//
// Bits: factors (1 - b1, lr / (1 - b1^t), 1 / sqrt(1 - b2^t), ...) are computed in double and rounded to
// float once; the elements are then worked on in f32 with separate multiplications and additions (no fma: the
// baseline has none, and -ffp-contract=off keeps the compiler from making one), correctly rounded division
// and square root. So every instruction set and thread count gives equal bits, of the norm too.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

struct OptimizerSegment {
  int64_t begin = 0, end = 0;
  double lr_scale = 1;
  double weight_decay = 0;
  bool frozen = false;
};

struct OptimizerParams {
  enum class Kind : uint8_t { sgd, adam, adamw };
  Kind kind = Kind::sgd;
  double momentum = 0, dampening = 0;
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double clip_norm = 0;  // 0: no clipping
  bool ema = false, half = false;
  std::vector<OptimizerSegment> segments;

  int state_count() const { return kind == Kind::sgd ? (momentum != 0 ? 1 : 0) : 2; }
  // Where they stand among the outputs; among the inputs 4 places later.
  size_t ema_output() const { return 1 + static_cast<size_t>(state_count()); }
  size_t half_output() const { return ema_output() + (ema ? 1 : 0); }
  std::string text() const {
    std::string s = fmt::format("kind={} momentum={} dampening={} nesterov={} betas={},{} eps={} clip={}{}{}",
                                static_cast<int>(kind), momentum, dampening, nesterov, beta1, beta2, eps,
                                clip_norm, ema ? " ema" : "", half ? " half" : "");
    for (const auto& g : segments)
      s += fmt::format(" [{},{}) lr*{} wd={}{}", g.begin, g.end, g.lr_scale, g.weight_decay,
                       g.frozen ? " frozen" : "");
    return s;
  }
};

}  // namespace lockstep
