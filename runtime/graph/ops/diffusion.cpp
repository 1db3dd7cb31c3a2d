// SPDX-License-Identifier: Apache-2.0
// The ops of a diffusion model's training step: diffusion_noise, weighted_mse, label_dropout, posterior_sample. Of these only
// the loss has a gradient, which the step graph emits, since it knows the step state.
#include "kernels/diffusion/noise.h"
#include "kernels/diffusion/posterior.h"
#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

// One number for each sample of x.
OutputRule by_sample(DType dtype, const Value& x) {
  return {{dtype, {x.spec.shape[0]}, Layout::plain}, x.batch};
}

std::vector<OutputRule> infer_noise(const Graph& g, const Params&, In in) {
  const Value& x0 = g.value(in[0]);
  if (x0.spec.shape.rank() < 2)
    shape_error(
        fmt::format("diffusion_noise needs samples of one dimension at least, got {}", x0.spec.shape.text()));
  TensorSpec target = x0.spec;
  target.dtype = DType::f32;
  return {{x0.spec, x0.batch}, {target, x0.batch}, by_sample(DType::i32, x0), by_sample(DType::f32, x0)};
}

std::vector<OutputRule> infer_weighted_mse(const Graph& g, const Params&, In in) {
  const Shape &pred = spec_of(g, in[0]).shape, &target = spec_of(g, in[1]).shape,
              &weights = spec_of(g, in[2]).shape;
  if (!(pred == target))
    shape_error(fmt::format("the model predicts {}, but the target is {}", pred.text(), target.text()));
  if (weights.rank() != 1 || pred.rank() < 2 || weights[0] != pred[0])
    shape_error(
        fmt::format("the loss of {} needs a weight for each sample, got {}", pred.text(), weights.text()));
  return {{plain_f32({2}), false}};
}

std::vector<OutputRule> infer_label_dropout(const Graph& g, const Params&, In in) {
  const Value& labels = g.value(in[0]);
  if (labels.spec.shape.rank() != 1)
    shape_error(fmt::format("label_dropout needs one label a sample, got {}", labels.spec.shape.text()));
  return {by_sample(DType::i32, labels)};
}

std::vector<OutputRule> infer_posterior(const Graph& g, const Params&, In in) {
  const Value& moments = g.value(in[0]);
  TensorSpec latents = moments.spec;
  if (latents.shape.rank() < 2 || latents.shape[1] % 2 != 0)
    shape_error(
        fmt::format("posterior_sample needs means and as many variances, got {}", latents.shape.text()));
  latents.shape.set(1, latents.shape[1] / 2);
  return {{latents, moments.batch}};
}

}  // namespace

std::vector<OpDef> diffusion_ops() {
  std::vector<OpDef> ops = {{"diffusion_noise", infer_noise},
                            {"weighted_mse", infer_weighted_mse},
                            {"weighted_mse_grad"},
                            {"label_dropout", infer_label_dropout},
                            {"posterior_sample", infer_posterior}};
  for (OpDef& op : ops)
    op.bf16 = OpDef::Bf16::never;  // the image that the noise goes to is not rounded first
  return ops;
}

}  // namespace lockstep
