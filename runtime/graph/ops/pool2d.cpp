// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool2d/pool2d.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

TensorSpec output(const Graph& g, const Params& params, ValueId in, const char* op) {
  const auto& p = params.as<Pool2dParams>();
  const TensorSpec& x = spec_of(g, in);
  if (x.shape.rank() != 4)
    shape_error(fmt::format("{} needs an image [N, C, H, W], got {}", op, x.shape.text()));
  if (p.pad_h * 2 > p.kernel_h || p.pad_w * 2 > p.kernel_w)
    shape_error(fmt::format("{}: padding {}x{} is more than half the window {}x{}", op, p.pad_h, p.pad_w,
                            p.kernel_h, p.kernel_w));
  const int64_t h = p.out_h(x.shape[2]), w = p.out_w(x.shape[3]);
  if (h <= 0 || w <= 0)
    shape_error(fmt::format("{}: window {}x{} is larger than its input {}", op, p.kernel_h, p.kernel_w,
                            x.shape.text()));
  return {x.dtype, {x.shape[0], x.shape[1], h, w}, x.layout};
}

std::vector<OutputRule> infer_max(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<Pool2dParams>();
  if (p.kernel_h * p.kernel_w > 256)
    shape_error(fmt::format("max_pool2d: window {}x{} has more than 256 positions", p.kernel_h, p.kernel_w));
  const TensorSpec y = output(g, params, in[0], "max_pool2d");
  return {{y}, {{DType::u8, y.shape, y.layout}}};
}

std::vector<OutputRule> infer_avg(const Graph& g, const Params& params, In in) {
  return {{output(g, params, in[0], "avg_pool2d")}};
}

std::vector<ValueId> gradient_max(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return {b.add_as("max_pool2d_grad", n.params, {dy[0], n.out[1]}, {gradient_like(b.graph(), n.in[0])})[0]};
}

std::vector<ValueId> gradient_avg(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return {b.add_as("avg_pool2d_grad", n.params, {dy[0]}, {gradient_like(b.graph(), n.in[0])})[0]};
}

}  // namespace

std::vector<OpDef> pool2d_ops() {
  return {{"max_pool2d", infer_max, gradient_max},
          {"max_pool2d_grad"},
          {"avg_pool2d", infer_avg, gradient_avg},
          {"avg_pool2d_grad"}};
}

}  // namespace lockstep
