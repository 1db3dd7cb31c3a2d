// SPDX-License-Identifier: Apache-2.0
// A row of the window is a run of zeros, a piece of a row of the image, as it is or mirrored, and zeros
// again.
#include <algorithm>
#include <cstring>

#include "kernels/core/parallel.h"
#include "kernels/image_augment/image_augment.h"
#include "kernels/image_augment/kernels.h"

namespace lockstep::image_augment {
namespace {

void augment_rows(const ImageAugmentParams& p, const KernelArgs& args, int threads) {
  const View &x = args.in[0], &y = args.out[0];
  const int64_t channels = x.dim(1), height = x.dim(2), width = x.dim(3), rows = y.dim(2), columns = y.dim(3);
  const StepState& state = *args.in[1].as<const StepState>();
  const int64_t sample = channels * rows * columns;
  constexpr int64_t kBytesOfAThread = 64 << 10;
  parallel_ranges(x.dim(0), threads, kBytesOfAThread / sample + 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto a = Augmentation::of(state, n, p.flip, p.padding, height - rows, width - columns);
      // Columns [first, last) of the image are seen; before mirroring they stand a.right further left.
      const int64_t first = std::clamp<int64_t>(a.right, 0, width);
      const int64_t last = std::clamp<int64_t>(a.right + columns, first, width);
      const int64_t at = a.mirrored ? columns - (last - a.right) : first - a.right;
      for (int64_t row = 0; row < channels * rows; ++row) {
        const int64_t c = row / rows, i = row % rows + a.down;
        uint8_t* to = y.as<uint8_t>() + n * sample + row * columns;
        if (i < 0 || i >= height || first == last) {
          std::memset(to, 0, static_cast<size_t>(columns));
          continue;
        }
        const uint8_t* from = x.as<const uint8_t>() + ((n * channels + c) * height + i) * width;
        std::memset(to, 0, static_cast<size_t>(at));
        if (a.mirrored)
          std::reverse_copy(from + first, from + last, to + at);
        else
          std::memcpy(to + at, from + first, static_cast<size_t>(last - first));
        const int64_t filled = at + last - first;
        std::memset(to + filled, 0, static_cast<size_t>(columns - filled));
      }
    }
  });
}

}  // namespace

void register_rows(Registry& r) {
  r.add({.op = "image_augment",
         .name = "rows",
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<ImageAugmentParams>(augment_rows)});
}

}  // namespace lockstep::image_augment
