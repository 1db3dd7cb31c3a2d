// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/winograd_tile.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include <algorithm>
#include <type_traits>

#include "kernels/conv2d/winograd_tile.h"
#include "kernels/conv2d/winograd_transforms-inl.h"
#include "kernels/core/dtypes.h"
#include "kernels/simd/activate-inl.h"
#include "kernels/simd/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {
namespace {

using namespace lockstep::winograd;

struct Pixel {
  int64_t sample, y, x;
};
// A tile's first pixel.
inline Pixel tile_start(const Tiling& t, int64_t tile) {
  const int64_t in_sample = tile % (t.rows * t.columns);
  return {tile / (t.rows * t.columns), in_sample / t.columns * kStep + t.first_y,
          in_sample % t.columns * kStep + t.first_x};
}

// Where a tile's I x I pixels lie; those outside the image are read from the same few zeros in all channels.
template <int I, class T>
struct Window {
  const T* at[I][I];
  int64_t keep[I][I];  // -1, outside 0: the channel to read is `channel & keep`

  Window(const Tiling& t, const T* x, int64_t tile) {
    alignas(64) static constexpr T kZeros[kLanes] = {};
    const Pixel p = tile_start(t, tile);
    const T* first = x + ((p.sample * t.h + p.y) * t.w + p.x) * t.c;
    LOCKSTEP_UNROLL for (int i = 0; i < I; ++i) {
      const bool row_inside = p.y + i >= 0 && p.y + i < t.h;
      LOCKSTEP_UNROLL for (int j = 0; j < I; ++j) {
        const bool inside = row_inside && p.x + j >= 0 && p.x + j < t.w;
        at[i][j] = inside ? first + (i * t.w + j) * t.c : kZeros;
        keep[i][j] = inside ? -1 : 0;
      }
    }
  }
  HWY_INLINE const T* pixel(int i, int j, int64_t channel) const { return at[i][j] + (channel & keep[i][j]); }
};

template <int I, class Transform, class T>
void transform_windows(const Tiling& t, const T* x, Range tiles, Range channels, Matrices to) {
  const int64_t padded = (channels.size() + kPanel - 1) / kPanel * kPanel;
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    const Window<I, T> window(t, x, tile), next(t, x, std::min(tile + 1, tiles.last - 1));
    float* row = to.at(tile - tiles.first);
    int64_t c = 0;
    const auto transform = [&](auto load_channels) {
      // Pixels lie too far apart for the processor's own prefetcher; the first columns were this tile's last.
      LOCKSTEP_UNROLL for (int i = 0; i < I; ++i) {
        LOCKSTEP_UNROLL for (int j = I - kStep; j < I; ++j) {
          __builtin_prefetch(next.pixel(i, j, channels.first + c), 0, 2);
        }
      }
      transform_square<I, kTile>(
          Transform(), [&](int i, int j) { return load_channels(window.pixel(i, j, channels.first + c)); },
          [&](int i, int j, Vec v) { store(v, row + (i * kTile + j) * to.slice + c); });
    };
    for (; c + kVec <= channels.size(); c += kVec) transform([](const T* p) { return load(p); });
    if (const int64_t left = channels.size() - c; left > 0) {
      transform([left](const T* p) { return load_part(p, left); });
      c += kVec;
    }
    for (; c < padded; c += kVec)
      for (int64_t s = 0; s < kSlices; ++s) store(hn::Zero(Floats()), row + s * to.slice + c);
  }
}

template <class T>
void store_windows(const Tiling& t, Matrices from, Range tiles, Range channels, const float* bias,
                   Activation activation, T* y) {
  const Floats d;
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    const Pixel p = tile_start(t, tile);
    const int64_t rows = std::min(kStep, t.h - p.y), columns = std::min(kStep, t.w - p.x);
    const float* row = from.at(tile - tiles.first);
    T* first = y + ((p.sample * t.h + p.y) * t.w + p.x) * t.c + channels.first;
    for (int64_t c = 0; c < channels.size(); c += kVec) {
      const int64_t left = channels.size() - c;
      const Vec b = bias ? load(bias + channels.first + c, left) : hn::Zero(d);
      Vec out[kStep][kStep];
      transform_square<kTile, kStep>(
          Output<kStep>(), [&](int i, int j) { return load(row + (i * kTile + j) * from.slice + c); },
          [&](int i, int j, Vec v) { out[i][j] = hn::Add(v, b); });
      if (activation != Activation::none)
        for (auto& of_row : out)
          for (Vec& v : of_row) v = activate(d, activation, v);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) store(out[i][j], first + (i * t.w + j) * t.c + c, left);
    }
  }
}

template <class T>
void transform_taps(const Filters& f, const T* w, Range inputs, Range outputs, Matrices to) {
  constexpr int64_t kMost = 16;
  HWY_ALIGN float taps[kMost * 9][kPanel] = {};              // of some inputs, for each output
  const int64_t together = f.input_stride == 9 ? kMost : 1;  // inputs that follow each other in memory
  for (int64_t first = inputs.first; first < inputs.last; first += together) {
    const int64_t last = std::min(first + together, inputs.last);
    transpose(Rows<T>{w + first * f.input_stride + outputs.first * f.output_stride, f.output_stride},
              outputs.size(), (last - first) * 9, taps[0], kPanel);
    for (int64_t i = first; i < last; ++i)
      for (int64_t o = 0; o < kPanel; o += kVec)
        transform_square<3, kTile>(
            Filter<3>(),
            [&](int r, int s) {
              return load(taps[(i - first) * 9 + (f.rotated ? 8 - (r * 3 + s) : r * 3 + s)] + o);
            },
            [&](int r, int s, Vec v) { store(v, to.at(i - inputs.first, o) + (r * kTile + s) * to.slice); });
  }
}

}  // namespace

void data_windows(const Tiling& t, const View& x, Range tiles, Range channels, Matrices to) {
  typed(x, [&](auto* from) { transform_windows<kTile, Data>(t, from, tiles, channels, to); });
}

void output_grad_windows(const Tiling& t, const View& dy, Range tiles, Range channels, Matrices to) {
  typed(dy, [&](auto* from) { transform_windows<kStep, Filter<4>>(t, from, tiles, channels, to); });
}

void output_windows(const Tiling& t, Matrices from, Range tiles, Range channels, const float* bias,
                    Activation activation, const View& y) {
  typed(y, [&](auto* to) { store_windows(t, from, tiles, channels, bias, activation, to); });
}

void filters(const Filters& f, Range inputs, Range outputs, Matrices to) {
  typed(f.w, [&](auto* w) { transform_taps(f, w, inputs, outputs, to); });
}

void weight_grad(Matrices from, Range inputs, Range outputs, int64_t all_inputs, float* dw) {
  constexpr int64_t kInputs = 16;
  HWY_ALIGN float taps[kInputs * 9][kVec];
  for (int64_t o = 0; o < outputs.size(); o += kVec)
    for (int64_t i = 0; i < inputs.size(); i += kInputs) {
      const int64_t count = std::min(kInputs, inputs.size() - i);
      for (int64_t k = 0; k < count; ++k)
        transform_square<kTile, 3>(
            Output<3>(), [&](int r, int s) { return load(from.at(i + k, o) + (r * kTile + s) * from.slice); },
            [&](int r, int s, Vec v) { store(v, taps[k * 9 + r * 3 + s]); });
      transpose(Rows<float>{taps[0], kVec}, count * 9, std::min<int64_t>(kVec, outputs.size() - o),
                dw + ((outputs.first + o) * all_inputs + inputs.first + i) * 9, all_inputs * 9);
    }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::winograd {

HWY_EXPORT(data_windows);
HWY_EXPORT(output_grad_windows);
HWY_EXPORT(output_windows);
HWY_EXPORT(filters);
HWY_EXPORT(weight_grad);

void transform_data(const Tiling& t, const View& x, Range tiles, Range channels, Matrices to) {
  HWY_DYNAMIC_DISPATCH(data_windows)(t, x, tiles, channels, to);
}

void transform_output_grad(const Tiling& t, const View& dy, Range tiles, Range channels, Matrices to) {
  HWY_DYNAMIC_DISPATCH(output_grad_windows)(t, dy, tiles, channels, to);
}

void transform_output(const Tiling& t, Matrices from, Range tiles, Range channels, const float* bias,
                      Activation activation, const View& y) {
  HWY_DYNAMIC_DISPATCH(output_windows)(t, from, tiles, channels, bias, activation, y);
}

void transform_filters(const Filters& f, Range inputs, Range outputs, Matrices to) {
  HWY_DYNAMIC_DISPATCH(filters)(f, inputs, outputs, to);
}

void transform_weight_grad(Matrices from, Range inputs, Range outputs, int64_t all_inputs, float* dw) {
  HWY_DYNAMIC_DISPATCH(weight_grad)(from, inputs, outputs, all_inputs, dw);
}

}  // namespace lockstep::winograd
#endif
