// SPDX-License-Identifier: Apache-2.0
#include "kernels/resample/resample.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

std::vector<OutputRule> infer_resample(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<UpsampleNearest2dParams>();
  const TensorSpec& x = spec_of(g, in[0]);
  if (x.shape.rank() != 4)
    shape_error(fmt::format("upsample_nearest2d needs an image [N, C, H, W], got {}", x.shape.text()));
  if (p.height < x.shape[2] || p.width < x.shape[3])
    shape_error(
        fmt::format("upsample_nearest2d: {}x{} is smaller than {}", p.height, p.width, x.shape.text()));
  return {{{x.dtype, {x.shape[0], x.shape[1], p.height, p.width}, x.layout}}};
}

std::vector<ValueId> gradient_resample(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return b.add_as("upsample_nearest2d_grad", n.params, {dy[0]}, {gradient_like(b.graph(), n.in[0])});
}

}  // namespace

std::vector<OpDef> resample_ops() {
  return {{"upsample_nearest2d", infer_resample, gradient_resample}, {"upsample_nearest2d_grad"}};
}

}  // namespace lockstep
