// SPDX-License-Identifier: Apache-2.0
// Pixels to floats. Coefficients are a launch argument, so that nothing need be copied to the GPU beforehand;
// images of more channels than one argument holds take several launches.
#include <cmath>

#include "kernels/gpu/device_code.h"
#include "kernels/gpu/vectors.h"
#include "kernels/image_normalize/image_normalize.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChannels = 16;  // of a launch

struct Channels {
  float scale[kChannels], offset[kChannels];
  unsigned first, count, all;
};

// kWidth numbers a thread, side by side in y. Vectors: in plain they are of one channel; in nhwc all channels
// are here.
template <class T, int kWidth, bool kNhwc>
__global__ void normalize(Channels channels, const uint8_t* x, T* y, unsigned groups, unsigned pixels) {
  const unsigned group = blockIdx.x * kThreads + threadIdx.x;
  if (group >= groups) return;
  float f[kWidth];
  unsigned at = 0;  // in y
  if constexpr (kNhwc) {
    unsigned pixel = group * kWidth / channels.count, c = group * kWidth % channels.count;
    unsigned n = pixel / pixels, i = pixel % pixels;
    at = pixel * channels.all + channels.first + c;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      f[k] = fmaf(float(x[(n * channels.all + channels.first + c) * pixels + i]), channels.scale[c],
                  channels.offset[c]);
      if (++c == channels.count) {
        c = 0;
        if (++i == pixels) i = 0, ++n;
      }
    }
  } else {
    const unsigned run = group / (pixels / kWidth), i = group % (pixels / kWidth) * kWidth;
    const unsigned c = run % channels.count, n = run / channels.count;
    at = (n * channels.all + channels.first + c) * pixels + i;
    const auto bytes = load_bytes<kWidth>(x + at);
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      f[k] =
          fmaf(float(static_cast<unsigned>(bytes >> (8 * k)) & 255), channels.scale[c], channels.offset[c]);
  }
  store_floats(y + at, f);
}

template <class T>
class Normalize final : public Kernel {
 public:
  explicit Normalize(const ImageNormalizeParams& p) : params_(p) {}

  void run(const KernelArgs& args) override {
    const View &x = args.in[0], &y = args.out[0];
    const int64_t all = x.dim(1), pixels = x.shape().elements_from(2);
    const bool nhwc = y.spec.layout == Layout::nhwc;
    for (int64_t first = 0; first < all; first += kChannels) {
      const int64_t count = std::min(kChannels, all - first);
      const Channels channels = coefficients(first, count, all);
      const bool wide = nhwc ? count == all && all * pixels % kVector<T> == 0 : pixels % kVector<T> == 0;
      in_parts(x.dim(0), all * pixels, [&](int64_t sample, int64_t samples) {
        const auto start = [&](auto kernel, int width) {
          const int64_t groups = samples * count * pixels / width;
          launch(kernel, blocks(groups, kThreads), kThreads, 0, args.stream, channels,
                 x.as<uint8_t>() + sample * all * pixels, y.as<T>() + sample * all * pixels, groups, pixels);
        };
        constexpr int kWide = kVector<T>;
        if (wide)
          start(nhwc ? normalize<T, kWide, true> : normalize<T, kWide, false>, kWide);
        else
          start(nhwc ? normalize<T, 1, true> : normalize<T, 1, false>, 1);
      });
    }
  }

 private:
  Channels coefficients(int64_t first, int64_t count, int64_t all) const {
    Channels r{};
    r.first = static_cast<unsigned>(first), r.count = static_cast<unsigned>(count),
    r.all = static_cast<unsigned>(all);
    for (int64_t i = 0; i < count; ++i) {
      const auto c = static_cast<size_t>(first + i);
      r.scale[i] = static_cast<float>(1 / (255 * double{params_.std[c]}));
      r.offset[i] = static_cast<float>(-double{params_.mean[c]} / double{params_.std[c]});
    }
    return r;
  }

  ImageNormalizeParams params_;
};

template <class T>
void add(Registry& r, Device device) {
  r.add({.op = "image_normalize",
         .name = "direct",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           const TensorSpec& y = q.out[0];
           if (y.layout == Layout::lanes || y.dtype != dtype_of<T> ||
               y.shape.elements_from(1) > kMostElements)
             return nullptr;
           return std::make_unique<Normalize<T>>(q.params.as<ImageNormalizeParams>());
         }});
}

}  // namespace

void register_image_normalize(Registry& r, Device device) {
  add<float>(r, device);
  add<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
