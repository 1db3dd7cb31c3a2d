// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/conv2d.h"

#include <algorithm>

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_conv2d(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<Conv2dParams>();
  const TensorSpec& x = spec_of(g, in[0]);
  const Shape& w = spec_of(g, in[1]).shape;
  if (x.shape.rank() != 4)
    shape_error(fmt::format("conv2d needs an image [N, C, H, W], got {}", x.shape.text()));
  if (x.shape[1] % p.groups != 0 || w[0] % p.groups != 0)
    shape_error(fmt::format("conv2d: {} groups divide neither evenly: {} input and {} output channels",
                            p.groups, x.shape[1], w[0]));
  if (w[1] * p.groups != x.shape[1])
    shape_error(fmt::format("conv2d: weight {} with {} groups takes {} channels, the input {} has {}",
                            w.text(), p.groups, w[1] * p.groups, x.shape.text(), x.shape[1]));
  const int64_t h = p.out_h(x.shape[2], w[2]), wd = p.out_w(x.shape[3], w[3]);
  if (h <= 0 || wd <= 0)
    shape_error(fmt::format(
        "conv2d: kernel {}x{} (dilation {}x{}, padding {},{},{},{}) is larger than its input {}", w[2], w[3],
        p.dilation_h, p.dilation_w, p.pad_top, p.pad_left, p.pad_bottom, p.pad_right, x.shape.text()));
  return {{{x.dtype, {x.shape[0], w[0], h, wd}, x.layout}}};
}

std::vector<ValueId> gradient_conv2d(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  LOCKSTEP_ASSERT(n.params.as<Conv2dParams>().activation == Activation::none, "differentiate before fusing");
  std::vector<ValueId> d(n.in.size(), kNoValue);
  const bool bias = n.in.size() > 2;
  if (wanted[1] || (bias && wanted[2])) {
    std::vector<OutputRule> out = {{b.spec(n.in[1]), false}};
    if (bias && wanted[2]) out.push_back({b.spec(n.in[2]), false});
    const auto dw = b.add_as("conv2d_weight_grad", n.params, {n.in[0], dy[0]}, out);
    if (wanted[1]) d[1] = dw[0];
    if (bias && wanted[2]) d[2] = dw[1];
  }
  if (wanted[0])
    d[0] = b.add_as("conv2d_input_grad", n.params, {dy[0], n.in[1]}, {gradient_like(b.graph(), n.in[0])})[0];
  return d;
}

// Multiplications and additions of the direct convolution, whichever of the three it is.
int64_t flops_of_conv2d(const Graph& g, ValueId y, ValueId w) {
  const Shape& s = spec_of(g, w).shape;
  return operations({2, elements_of(g, y), s.elements_from(1)});
}

// From 16 channels on they fill a vector and lie last. Fewer: samples in vector lanes, where no channel count
// is too odd, unless the working set of 16 images leaves the cache. A first convolution, whose input's
// gradient nobody wants, is as fast either way and follows its outputs.
Layout preferred_conv2d(const Graph& g, const Node& n) {
  constexpr int64_t kFills = 16, kCached = 32, kPicture = 4;
  const Shape& w = spec_of(g, n.in[1]).shape;
  const int64_t in = w[1], out = w[0] / n.params.as<Conv2dParams>().groups;
  const bool fills = out >= kFills && (in >= kFills || (in <= kPicture && out % kFills == 0));
  return fills || std::max(in, out) > kCached ? Layout::nhwc : Layout::lanes;
}

}  // namespace

std::vector<OpDef> conv2d_ops() {
  OpDef forward{"conv2d",
                infer_conv2d,
                gradient_conv2d,
                [](const Graph& g, const Node& n) { return flops_of_conv2d(g, n.out[0], n.in[1]); },
                {},
                preferred_conv2d};
  OpDef input{"conv2d_input_grad"}, weight{"conv2d_weight_grad"};
  input.flops = [](const Graph& g, const Node& n) { return flops_of_conv2d(g, n.in[0], n.in[1]); };
  weight.flops = [](const Graph& g, const Node& n) { return flops_of_conv2d(g, n.in[1], n.out[0]); };
  forward.bf16 = input.bf16 = weight.bf16 = OpDef::Bf16::wants;
  forward.bf16_in = input.bf16_in = {0, 1};  // with the weights
  return {forward, input, weight};
}

}  // namespace lockstep
