// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/patches.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/patches.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include <algorithm>

#include "kernels/core/dtypes.h"
#include "kernels/simd/activate-inl.h"
#include "kernels/simd/transpose-inl.h"
#include "kernels/simd/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {
namespace {

struct Place {
  int64_t sample, y, x;  // of the pixel that the first tap takes
};
inline Place place_of(const Patches& g, int64_t row) {
  const int64_t in_sample = row % g.outputs();
  return {row / g.outputs(), in_sample / g.q * g.params.stride_h - g.params.pad_top,
          in_sample % g.q * g.params.stride_w - g.params.pad_left};
}
// The pixel that a tap takes, within its sample; -1: none.
inline int64_t pixel_of(const Patches& g, const Place& at, int64_t tap) {
  const int64_t y = at.y + tap / g.kw * g.params.dilation_h, x = at.x + tap % g.kw * g.params.dilation_w;
  return y >= 0 && y < g.h && x >= 0 && x < g.w ? y * g.w + x : -1;
}

template <class T>
void load_rows(const Patches& g, const T* x, Range rows, Range taps, Range channels, float* to,
               int64_t to_row) {
  for (int64_t row = rows.first; row < rows.last; ++row, to += to_row) {
    const Place at = place_of(g, row);
    float* next = to;
    for (int64_t tap = taps.first; tap < taps.last; ++tap, next += channels.size()) {
      const int64_t pixel = pixel_of(g, at, tap);
      if (pixel < 0) {
        std::fill_n(next, channels.size(), 0.0f);
        continue;
      }
      const T* from = x + (at.sample * g.h * g.w + pixel) * g.c + channels.first;
      for (int64_t i = 0; i < channels.size(); i += kVec)
        store(load(from + i, channels.size() - i), next + i, channels.size() - i);
    }
  }
}

template <class T>
void pack(const Patches& g, const T* w, Range outputs, float* to) {
  constexpr int64_t kTogether = 256;  // taps of some channels, for each output
  HWY_ALIGN float part[kTogether][kPanel] = {};
  const int64_t all = g.c * g.taps();  // of an output: channel by channel
  for (int64_t first = 0; first < all; first += kTogether) {
    const int64_t count = std::min(kTogether, all - first);
    transpose(Rows<T>{w + outputs.first * all + first, all}, outputs.size(), count, part[0], kPanel);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t c = (first + i) / g.taps(), tap = (first + i) % g.taps();
      std::copy_n(part[i], kPanel, to + (tap * g.c + c) * kPanel);
    }
  }
}

template <class T>
void pack_back(const Patches& g, const T* w, int64_t outputs, int64_t tap, Range channels, float* to) {
  for (int64_t o = 0; o < outputs; ++o, to += kPanel) {
    const T* from = w + (o * g.c + channels.first) * g.taps() + tap;
    if (g.taps() == 1) {
      for (int64_t i = 0; i < channels.size(); i += kVec)
        store(load(from + i, channels.size() - i), to + i, channels.size() - i);
    } else {
      for (int64_t i = 0; i < channels.size(); ++i) to[i] = float(from[i * g.taps()]);
    }
    std::fill(to + channels.size(), to + kPanel, 0.0f);
  }
}

template <class T>
void finish_rows(const float* from, Range rows, Range columns, const float* bias, Activation activation, T* y,
                 int64_t width) {
  const Floats d;
  for (int64_t row = rows.first; row < rows.last; ++row, from += kPanel)
    for (int64_t i = 0; i < columns.size(); i += kVec) {
      const int64_t left = columns.size() - i, column = columns.first + i;
      Vec v = load(from + i / kPanel * rows.size() * kPanel + i % kPanel);
      if (bias) v = hn::Add(v, load(bias + column, left));
      if (activation != Activation::none) v = activate(d, activation, v);
      store(v, y + row * width + column, left);
    }
}

}  // namespace

void patches_load(const Patches& g, const View& x, Range rows, Range taps, Range channels, float* to,
                  int64_t to_row) {
  typed(x, [&](auto* from) { load_rows(g, from, rows, taps, channels, to, to_row); });
}

void patches_add(const Patches& g, const float* from, Range rows, int64_t tap, Range channels, float* image) {
  for (int64_t row = rows.first; row < rows.last; ++row, from += kPanel) {
    const int64_t pixel = pixel_of(g, place_of(g, row), tap);
    if (pixel < 0) continue;
    float* to = image + pixel * g.c + channels.first;
    for (int64_t i = 0; i < channels.size(); i += kVec) {
      const int64_t left = channels.size() - i;
      store(hn::Add(load(to + i, left), load(from + i)), to + i, left);
    }
  }
}

void filters_pack(const Patches& g, const View& w, Range outputs, float* to) {
  typed(w, [&](auto* from) { pack(g, from, outputs, to); });
}

void filters_pack_back(const Patches& g, const View& w, int64_t outputs, int64_t tap, Range channels,
                       float* to) {
  typed(w, [&](auto* from) { pack_back(g, from, outputs, tap, channels, to); });
}

void rows_store(const float* from, Range rows, Range columns, const float* bias, Activation activation,
                const View& y, int64_t width) {
  typed(y, [&](auto* to) { finish_rows(from, rows, columns, bias, activation, to, width); });
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep {

HWY_EXPORT(patches_load);
HWY_EXPORT(patches_add);
HWY_EXPORT(filters_pack);
HWY_EXPORT(filters_pack_back);
HWY_EXPORT(rows_store);

void load_patches(const Patches& g, const View& x, Range rows, Range taps, Range channels, float* to,
                  int64_t to_row) {
  HWY_DYNAMIC_DISPATCH(patches_load)(g, x, rows, taps, channels, to, to_row);
}

void add_patches(const Patches& g, const float* from, Range rows, int64_t tap, Range channels, float* image) {
  HWY_DYNAMIC_DISPATCH(patches_add)(g, from, rows, tap, channels, image);
}

void pack_filters(const Patches& g, const View& w, Range outputs, float* to) {
  HWY_DYNAMIC_DISPATCH(filters_pack)(g, w, outputs, to);
}

void pack_filters_back(const Patches& g, const View& w, int64_t outputs, int64_t tap, Range channels,
                       float* to) {
  HWY_DYNAMIC_DISPATCH(filters_pack_back)(g, w, outputs, tap, channels, to);
}

void store_rows(const float* from, Range rows, Range columns, const float* bias, Activation activation,
                const View& y, int64_t width) {
  HWY_DYNAMIC_DISPATCH(rows_store)(from, rows, columns, bias, activation, y, width);
}

}  // namespace lockstep
#endif
