// SPDX-License-Identifier: Apache-2.0
// A thread makes kWidth pixels side by side: four, or one where rows are of another length. Each draws for
// itself: a draw costs less than handing it round.
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"
#include "kernels/image_augment/image_augment.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

template <int kWidth>
__global__ void augment(const uint8_t* x, uint8_t* y, const StepState* state, int64_t samples,
                        int64_t channels, int64_t height, int64_t width, int64_t rows, int64_t columns,
                        bool flip, int64_t padding) {
  const int64_t groups = columns / kWidth;  // of a row
  const int64_t u = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, row = u / groups, j = u % groups * kWidth;
  const int64_t n = row / (channels * rows);
  if (n >= samples) return;
  const Augmentation a = Augmentation::of(*state, n, flip, padding, height - rows, width - columns);
  const int64_t i = row % rows + a.down;
  const uint8_t* from = x + (row / rows * height + i) * width;
  uint8_t* to = y + row * columns + j;
  Vector<uint8_t, 4> pixels;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const int64_t column = (a.mirrored ? columns - 1 - (j + k) : j + k) + a.right;
    const bool inside = i >= 0 && i < height && column >= 0 && column < width;
    pixels[k] = inside ? from[column] : uint8_t{0};
  }
  if constexpr (kWidth == 4)
    store_vector(to, pixels);
  else
    *to = pixels[0];
}

void run(const ImageAugmentParams& p, const KernelArgs& args) {
  const View &x = args.in[0], &y = args.out[0];
  const int64_t n = x.dim(0), c = x.dim(1), rows = y.dim(2), columns = y.dim(3);
  const auto start = [&](auto kernel, int64_t pixels) {
    launch(kernel, blocks(n * c * rows * columns / pixels, kThreads), kThreads, 0, args.stream,
           x.as<const uint8_t>(), y.as<uint8_t>(), args.in[1].as<const StepState>(), n, c, x.dim(2), x.dim(3),
           rows, columns, p.flip, p.padding);
  };
  if (columns % 4 == 0)
    start(augment<4>, 4);
  else
    start(augment<1>, 1);
}

}  // namespace

void register_image_augment(Registry& r, Device device) {
  r.add({.op = "image_augment",
         .name = "gather",
         .device = device,
         .bit_exact = {.threads = true, .shard = true},
         .make = stateless<ImageAugmentParams>(run)});
}

}  // namespace lockstep::LOCKSTEP_DEVICE
