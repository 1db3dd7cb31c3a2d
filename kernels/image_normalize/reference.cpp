// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/padding.h"
#include "kernels/image_normalize/image_normalize.h"
#include "kernels/image_normalize/kernels.h"

namespace lockstep::image_normalize {
namespace {

void normalize_reference(const ImageNormalizeParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  const int64_t pixels = x.shape().elements_from(2);
  for (int64_t n = 0; n < x.dim(0); ++n)
    for (int64_t i = 0; i < x.shape().elements_from(1); ++i) {
      const auto c = static_cast<size_t>(i / pixels);
      const double value = x.as<uint8_t>()[x.spec.offset(n, i)] / 255.0;
      y.as<float>()[y.spec.offset(n, i)] = static_cast<float>((value - p.mean[c]) / p.std[c]);
    }
  zero_padding_lanes(y);
}

}  // namespace

void register_reference(Registry& r) {
  r.add({.op = "image_normalize",
         .name = "reference",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<ImageNormalizeParams>(normalize_reference)});
}

}  // namespace lockstep::image_normalize
