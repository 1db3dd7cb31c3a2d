// Optimizers over flat arrays: all parameters of a model in one pass.
//
// Ops                inputs                                        outputs
//   grad_norm        grads                                         norm [1]: sqrt of the sum of squares over all
//                                                                  segments that are not frozen, carried in double
//                                                                  over fixed-size chunks added in order
//   optimizer_step   params, grads, step_state, metrics, norm,     params, state... (the inputs' buffers, in place)
//                    state...
// params, grads, state: flat f32 [length] plain. metrics [>= 1] f32: where element 0 (the global loss sum) is not
// finite the step changes nothing. norm [1]: read only where clip_norm > 0.
// state: none (sgd without momentum), momentum (sgd), m and v (adam, adamw).
// A segment covers elements [begin, end) of the flat arrays; gaps between segments (alignment) are left alone.
//
// With g = grad * min(1, clip_norm / (norm + 1e-6)) where clip_norm > 0 (PyTorch's clip_grad_norm_),
// lr = StepState.lr * lr_scale, t = StepState.step + 1:
//   sgd    g += wd * p; first step: buf = g, then buf = momentum * buf + (1 - dampening) * g;
//          g = nesterov ? g + momentum * buf : buf;  p -= lr * g              (PyTorch's SGD)
//   adam   g += wd * p; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
//          p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)            (Kingma, Ba: arXiv 1412.6980)
//   adamw  p -= lr * wd * p, then as adam without the decay               (Loshchilov, Hutter: arXiv 1711.05101)
// Equal bits on every instruction set and thread count: fixed order of operations, explicit fma, correctly
// rounded sqrt and division, -ffp-contract=off.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

struct OptimizerSegment {
  int64_t begin = 0, end = 0;
  float lr_scale = 1;
  float weight_decay = 0;
  bool frozen = false;
};

struct OptimizerParams {
  enum class Kind : uint8_t { sgd, adam, adamw };
  Kind kind = Kind::sgd;
  float momentum = 0, dampening = 0;
  bool nesterov = false;
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  float clip_norm = 0;  // 0: no clipping
  std::vector<OptimizerSegment> segments;

  int state_count() const { return kind == Kind::sgd ? (momentum != 0 ? 1 : 0) : 2; }
  std::string text() const {
    std::string s = fmt::format("kind={} momentum={} dampening={} nesterov={} betas={},{} eps={} clip={}",
                                static_cast<int>(kind), momentum, dampening, nesterov, beta1, beta2, eps, clip_norm);
    for (const auto& g : segments)
      s += fmt::format(" [{},{}) lr*{} wd={}{}", g.begin, g.end, g.lr_scale, g.weight_decay, g.frozen ? " frozen" : "");
    return s;
  }
};

}  // namespace lockstep
