// SPDX-License-Identifier: Apache-2.0
#include "kernels/concat/concat.h"
#include "kernels/concat/kernels.h"
#include "kernels/core/padding.h"

namespace lockstep::concat {
namespace {

// to[n, to_channel + c, ...] = from[n, from_channel + c, ...] for c < channels.
void copy_channels(const View& from, int64_t from_channel, const View& to, int64_t to_channel,
                   int64_t channels) {
  const int64_t pixels = to.shape().elements_from(2);
  for (int64_t n = 0; n < to.dim(0); ++n)
    for (int64_t i = 0; i < channels * pixels; ++i)
      to.as<float>()[to.spec.offset(n, to_channel * pixels + i)] =
          from.as<float>()[from.spec.offset(n, from_channel * pixels + i)];
  zero_padding_lanes(to);
}

void concat(const NoParams&, const KernelArgs& args) {
  int64_t begin = 0;
  for (const View& x : args.in) {
    copy_channels(x, 0, args.out[0], begin, x.dim(1));
    begin += x.dim(1);
  }
}

void slice(const SliceChannelsParams& p, const KernelArgs& args) {
  copy_channels(args.in[0], p.begin, args.out[0], 0, p.count);
}

void slice_grad(const SliceChannelsParams& p, const KernelArgs& args) {
  const View& dx = args.out[0];
  for (int64_t i = 0; i < dx.spec.stored_elements(); ++i) dx.as<float>()[i] = 0;
  copy_channels(args.in[0], 0, dx, p.begin, p.count);
}

}  // namespace

void register_reference(Registry& r) {
  const auto add = [&](const char* op, auto make) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = true},
           .make = make});
  };
  add("concat", stateless<NoParams>(concat));
  add("slice_channels", stateless<SliceChannelsParams>(slice));
  add("slice_channels_grad", stateless<SliceChannelsParams>(slice_grad));
}

}  // namespace lockstep::concat
