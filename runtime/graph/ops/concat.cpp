// SPDX-License-Identifier: Apache-2.0
#include "kernels/concat/concat.h"

#include "runtime/graph/ops/rules.h"

namespace lockstep {
namespace {

Shape with_channels(Shape s, int64_t channels) {
  s.set(1, channels);
  return s;
}

std::vector<OutputRule> infer_concat(const Graph& g, const Params&, In in) {
  LOCKSTEP_ASSERT(in.size() >= 2, "concat of {} values", in.size());
  TensorSpec y = spec_of(g, in[0]);
  int64_t channels = 0;
  for (ValueId v : in) {
    const TensorSpec& x = spec_of(g, v);
    if (x.shape.rank() < 2 || !(with_channels(x.shape, 0) == with_channels(y.shape, 0)))
      shape_error(fmt::format("concat needs [N, C, ...], equal but for C, got {} and {}", y.shape.text(),
                              x.shape.text()));
    channels += x.shape[1];
  }
  y.shape.set(1, channels);
  return {{y}};
}

std::vector<ValueId> gradient_concat(GraphBuilder& b, const Node& n, In dy, const Wanted& wanted) {
  std::vector<ValueId> d;
  int64_t begin = 0;
  for (size_t i = 0; i < n.in.size(); ++i) {
    const int64_t count = b.spec(n.in[i]).shape[1];
    d.push_back(wanted[i] ? b.add_as("slice_channels", SliceChannelsParams{begin, count}, {dy[0]},
                                     {gradient_like(b.graph(), n.in[i])})[0]
                          : kNoValue);
    begin += count;
  }
  return d;
}

std::vector<OutputRule> infer_slice(const Graph& g, const Params& params, In in) {
  const auto& p = params.as<SliceChannelsParams>();
  TensorSpec x = spec_of(g, in[0]);
  if (x.shape.rank() < 2 || p.begin < 0 || p.count < 1 || p.begin + p.count > x.shape[1])
    shape_error(fmt::format("slice_channels: {} has no channels {} to {}", x.shape.text(), p.begin,
                            p.begin + p.count - 1));
  x.shape.set(1, p.count);
  return {{x}};
}

std::vector<ValueId> gradient_slice(GraphBuilder& b, const Node& n, In dy, const Wanted&) {
  return b.add_as("slice_channels_grad", n.params, {dy[0]}, {gradient_like(b.graph(), n.in[0])});
}

}  // namespace

std::vector<OpDef> concat_ops() {
  return {{"concat", infer_concat, gradient_concat},
          {"slice_channels", infer_slice, gradient_slice},
          {"slice_channels_grad"}};
}

}  // namespace lockstep
