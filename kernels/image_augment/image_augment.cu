// A thread makes kWidth pixels side by side: four, or one where rows are of another length. Each draws for
// itself: a draw costs less than handing it round.
#include "kernels/core/gpu/device_code.h"
#include "kernels/core/kernel.h"
#include "kernels/image_augment/image_augment.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;

template <int kWidth>
__global__ void augment(const uint8_t* x, uint8_t* y, const StepState* state, int64_t samples,
                        int64_t channels, int64_t height, int64_t width, bool flip, int64_t padding) {
  const int64_t groups = width / kWidth;  // of a row
  const int64_t u = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, row = u / groups, j = u % groups * kWidth;
  const int64_t n = row / (channels * height);
  if (n >= samples) return;
  const Augmentation a = Augmentation::of(*state, n, flip, padding);
  const int64_t down = a.top - padding, right = a.left - padding, i = row % height + down;
  uint8_t* to = y + row * width + j;
  Vector<uint8_t, 4> pixels;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    const int64_t column = (a.mirrored ? width - 1 - (j + k) : j + k) + right;
    const bool inside = i >= 0 && i < height && column >= 0 && column < width;
    pixels[k] = inside ? x[(row + down) * width + column] : uint8_t{0};
  }
  if constexpr (kWidth == 4)
    store_vector(to, pixels);
  else
    *to = pixels[0];
}

void run(const ImageAugmentParams& p, const KernelArgs& args) {
  const View& x = args.in[0];
  const int64_t n = x.dim(0), c = x.dim(1), h = x.dim(2), w = x.dim(3);
  const auto start = [&](auto kernel, int64_t pixels) {
    launch(kernel, blocks(n * c * h * w / pixels, kThreads), kThreads, 0, args.stream, x.as<const uint8_t>(),
           args.out[0].as<uint8_t>(), args.in[1].as<const StepState>(), n, c, h, w, p.flip, p.padding);
  };
  if (w % 4 == 0)
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
