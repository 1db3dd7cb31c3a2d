// SPDX-License-Identifier: Apache-2.0
// Pixels are widened, scaled and laid out in one pass. Multiply, then add: no fma, so that every instruction
// set gives the same bits.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/image_normalize/highway.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for each target.
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "kernels/core/padding.h"
#include "kernels/core/parallel.h"
#include "kernels/image_normalize/image_normalize.h"
#include "kernels/image_normalize/kernels.h"
#include "kernels/simd/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::image_normalize {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE hn::Vec<D> widen(D d, const uint8_t* p) {
  const hn::Rebind<int32_t, D> di;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(hn::Rebind<uint8_t, D>(), p)));
}

// Rows of pixels; row i is of channel i * channel_step.
struct Pixels {
  const uint8_t* from;
  int64_t stride;
  const float *scale, *offset;
  int64_t channel_step;

  HWY_INLINE float one(int64_t row, int64_t col) const {
    return static_cast<float>(from[row * stride + col]) * scale[row * channel_step] +
           offset[row * channel_step];
  }
  HWY_INLINE auto four(int64_t row, int64_t col) const {
    const lockstep::HWY_NAMESPACE::Float4 d;
    return hn::Add(hn::Mul(widen(d, from + row * stride + col), hn::Set(d, scale[row * channel_step])),
                   hn::Set(d, offset[row * channel_step]));
  }
};

void transpose_pixels(const uint8_t* x, int64_t x_stride, const float* scale, const float* offset,
                      int64_t channel_step, int64_t rows, int64_t cols, float* y, int64_t y_stride) {
  lockstep::HWY_NAMESPACE::transpose(Pixels{x, x_stride, scale, offset, channel_step}, rows, cols, y,
                                     y_stride);
}

void copy_pixels(const uint8_t* x, float scale, float offset, int64_t n, float* y) {
  const hn::ScalableTag<float> d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + step <= n; i += step)
    hn::StoreU(hn::Add(hn::Mul(widen(d, x + i), hn::Set(d, scale)), hn::Set(d, offset)), d, y + i);
  for (; i < n; ++i) y[i] = static_cast<float>(x[i]) * scale + offset;
}

}  // namespace HWY_NAMESPACE
}  // namespace lockstep::image_normalize
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::image_normalize {
namespace {

HWY_EXPORT(transpose_pixels);
HWY_EXPORT(copy_pixels);

class Highway final : public Kernel {
 public:
  Highway(const ImageNormalizeParams& p, int threads) : threads_(threads) {
    for (size_t c = 0; c < p.mean.size(); ++c) {
      scale_.push_back(static_cast<float>(1 / (255.0 * p.std[c])));
      offset_.push_back(static_cast<float>(-double{p.mean[c]} / p.std[c]));
    }
  }

  void run(const KernelArgs& args) override {
    const View &x = args.in[0], &y = args.out[0];
    const int64_t n = x.dim(0), c = x.dim(1), hw = x.shape().elements_from(2);
    const auto* from = x.as<const uint8_t>();
    auto* to = y.as<float>();
    switch (y.spec.layout) {
      case Layout::plain:
        each(n * c, hw, [&](int64_t i) {
          HWY_DYNAMIC_DISPATCH(copy_pixels)(from + i * hw, scale(i % c), offset(i % c), hw, to + i * hw);
        });
        break;
      case Layout::nhwc:
        each(n, c * hw, [&](int64_t i) {
          HWY_DYNAMIC_DISPATCH(transpose_pixels)
          (from + i * c * hw, hw, scale_.data(), offset_.data(), 1, c, hw, to + i * c * hw, c);
        });
        break;
      case Layout::lanes:
        each((n + kLanes - 1) / kLanes * c, hw * kLanes, [&](int64_t i) {
          const int64_t first = i / c * kLanes, channel = i % c;
          const auto at = static_cast<size_t>(channel);
          HWY_DYNAMIC_DISPATCH(transpose_pixels)
          (from + (first * c + channel) * hw, c * hw, &scale_[at], &offset_[at], 0,
           std::min<int64_t>(kLanes, n - first), hw, to + i * hw * kLanes, kLanes);
        });
        zero_padding_lanes(y);
    }
  }

 private:
  float scale(int64_t c) const { return scale_[static_cast<size_t>(c)]; }
  float offset(int64_t c) const { return offset_[static_cast<size_t>(c)]; }

  // f(i) for i in [0, n), each worth so many floats; a thread has 8 K at least.
  template <class F>
  void each(int64_t n, int64_t floats, F f) const {
    parallel_ranges(n, threads_, 8192 / std::max<int64_t>(floats, 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(i);
    });
  }

  int threads_;
  std::vector<float> scale_, offset_;
};

}  // namespace

void register_highway(Registry& r) {
  r.add({.op = "image_normalize",
         .name = "highway",
         .layout = LayoutClass::any,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& request) -> std::unique_ptr<Kernel> {
           return std::make_unique<Highway>(request.params.as<ImageNormalizeParams>(), request.threads);
         }});
}

}  // namespace lockstep::image_normalize
#endif
