// A row of the result is a run of zeros, a piece of a row of the image, as it is or mirrored, and zeros
// again.
#include <algorithm>
#include <cstring>

#include "kernels/core/parallel.h"
#include "kernels/image_augment/image_augment.h"
#include "kernels/image_augment/kernels.h"

namespace lockstep::image_augment {
namespace {

void run(const ImageAugmentParams& p, const KernelArgs& args, int threads) {
  const View& x = args.in[0];
  const int64_t channels = x.dim(1), height = x.dim(2), width = x.dim(3);
  const StepState& state = *args.in[1].as<const StepState>();
  const int64_t sample = channels * height * width;
  constexpr int64_t kBytesOfAThread = 64 << 10;
  parallel_ranges(x.dim(0), threads, kBytesOfAThread / sample + 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto a = Augmentation::of(state, n, p.flip, p.padding);
      const int64_t down = a.top - p.padding, right = a.left - p.padding;
      // Columns [first, last) of the image are seen; before mirroring they stand `right` further left.
      const int64_t first = std::clamp<int64_t>(right, 0, width);
      const int64_t last = std::clamp<int64_t>(right + width, first, width);
      const int64_t at = a.mirrored ? width - (last - right) : first - right;
      for (int64_t row = 0; row < channels * height; ++row) {
        const int64_t i = row % height + down;
        uint8_t* to = args.out[0].as<uint8_t>() + n * sample + row * width;
        if (i < 0 || i >= height || first == last) {
          std::memset(to, 0, static_cast<size_t>(width));
          continue;
        }
        const uint8_t* from = x.as<const uint8_t>() + n * sample + (row + down) * width;
        std::memset(to, 0, static_cast<size_t>(at));
        if (a.mirrored)
          std::reverse_copy(from + first, from + last, to + at);
        else
          std::memcpy(to + at, from + first, static_cast<size_t>(last - first));
        const int64_t filled = at + last - first;
        std::memset(to + filled, 0, static_cast<size_t>(width - filled));
      }
    }
  });
}

}  // namespace

void register_rows(Registry& r) {
  r.add({.op = "image_augment",
         .name = "rows",
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<ImageAugmentParams>(run)});
}

}  // namespace lockstep::image_augment
