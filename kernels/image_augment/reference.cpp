// SPDX-License-Identifier: Apache-2.0
#include "kernels/image_augment/image_augment.h"
#include "kernels/image_augment/kernels.h"

namespace lockstep::image_augment {
namespace {

void augment_reference(const ImageAugmentParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  const int64_t channels = x.dim(1), height = x.dim(2), width = x.dim(3);
  const int64_t rows = y.dim(2), columns = y.dim(3);
  for (int64_t n = 0; n < x.dim(0); ++n) {
    const auto a = Augmentation::of(*args.in[1].as<const StepState>(), n, p.flip, p.padding, height - rows,
                                    width - columns);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) {
          const int64_t row = a.down + i;
          const int64_t column = a.right + (a.mirrored ? columns - 1 - j : j);
          const bool inside = row >= 0 && row < height && column >= 0 && column < width;
          y.as<uint8_t>()[y.spec.offset(n, c, i, j)] =
              inside ? x.as<uint8_t>()[x.spec.offset(n, c, row, column)] : 0;
        }
  }
}

}  // namespace

void register_reference(Registry& r) {
  r.add({.op = "image_augment",
         .name = "reference",
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<ImageAugmentParams>(augment_reference)});
}

}  // namespace lockstep::image_augment
