#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/winograd_tile.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "kernels/conv2d/winograd_tile.h"
#include "kernels/conv2d/winograd_transforms-inl.h"
#include "kernels/core/activate-inl.h"
#include "kernels/reorder/transpose-inl.h"

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
template <int I>
struct Window {
  const float* at[I][I];
  int64_t keep[I][I];  // -1, outside 0: the channel to read is `channel & keep`

  Window(const Tiling& t, const float* x, int64_t tile) {
    alignas(64) static constexpr float kZeros[kLanes] = {};
    const Pixel p = tile_start(t, tile);
    const float* first = x + ((p.sample * t.h + p.y) * t.w + p.x) * t.c;
    LOCKSTEP_UNROLL for (int i = 0; i < I; ++i) {
      const bool row_inside = p.y + i >= 0 && p.y + i < t.h;
      LOCKSTEP_UNROLL for (int j = 0; j < I; ++j) {
        const bool inside = row_inside && p.x + j >= 0 && p.x + j < t.w;
        at[i][j] = inside ? first + (i * t.w + j) * t.c : kZeros;
        keep[i][j] = inside ? -1 : 0;
      }
    }
  }
  HWY_INLINE const float* pixel(int i, int j, int64_t channel) const {
    return at[i][j] + (channel & keep[i][j]);
  }
};

template <int I, class Transform>
void transform_windows(const Tiling& t, const float* x, Range tiles, Range channels, Matrices to) {
  const int64_t padded = (channels.size() + kPanel - 1) / kPanel * kPanel;
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    const Window<I> window(t, x, tile), next(t, x, std::min(tile + 1, tiles.last - 1));
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
    for (; c + kVec <= channels.size(); c += kVec) transform([](const float* p) { return load(p); });
    if (const int64_t left = channels.size() - c; left > 0) {
      transform([left](const float* p) { return load_part(p, left); });
      c += kVec;
    }
    for (; c < padded; c += kVec)
      for (int64_t s = 0; s < kSlices; ++s) store(hn::Zero(Floats()), row + s * to.slice + c);
  }
}

}  // namespace

void data_windows(const Tiling& t, const float* x, Range tiles, Range channels, Matrices to) {
  transform_windows<kTile, Data>(t, x, tiles, channels, to);
}

void output_grad_windows(const Tiling& t, const float* dy, Range tiles, Range channels, Matrices to) {
  transform_windows<kStep, Filter<4>>(t, dy, tiles, channels, to);
}

void output_windows(const Tiling& t, Matrices from, Range tiles, Range channels, const float* bias,
                    Activation activation, float* y) {
  const Floats d;
  for (int64_t tile = tiles.first; tile < tiles.last; ++tile) {
    const Pixel p = tile_start(t, tile);
    const int64_t rows = std::min(kStep, t.h - p.y), columns = std::min(kStep, t.w - p.x);
    const float* row = from.at(tile - tiles.first);
    float* first = y + ((p.sample * t.h + p.y) * t.w + p.x) * t.c + channels.first;
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

void filters(const Filters& f, Range inputs, Range outputs, Matrices to) {
  constexpr int64_t kMost = 16;
  HWY_ALIGN float taps[kMost * 9][kPanel] = {};              // of some inputs, for each output
  const int64_t together = f.input_stride == 9 ? kMost : 1;  // inputs that follow each other in memory
  for (int64_t first = inputs.first; first < inputs.last; first += together) {
    const int64_t last = std::min(first + together, inputs.last);
    transpose(FloatRows{f.w + first * f.input_stride + outputs.first * f.output_stride, f.output_stride},
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
      transpose(FloatRows{taps[0], kVec}, count * 9, std::min<int64_t>(kVec, outputs.size() - o),
                dw + ((outputs.first + o) * all_inputs + inputs.first + i) * 9, all_inputs * 9);
    }
}

namespace {

// A strip of sums in registers, beside two vectors of b and one of a.
constexpr int kStripRows = kRegisters == 32 ? 8 : 6;
constexpr int kStripVecs = 2;

template <int R>
void strip(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row, float* c,
           int64_t depth, bool add) {
  Vec sum[R][kStripVecs];
  LOCKSTEP_UNROLL for (int r = 0; r < R; ++r) {
    LOCKSTEP_UNROLL for (int v = 0; v < kStripVecs; ++v) {
      sum[r][v] = add ? load(c + r * kPanel + v * kVec) : hn::Zero(Floats());
    }
  }
  for (int64_t k = 0; k < depth; ++k, a += a_step, b += b_row) {
    const Vec b0 = load(b), b1 = load(b + kVec);
    LOCKSTEP_UNROLL for (int r = 0; r < R; ++r) {
      const Vec v = constant(a[r * a_row]);
      sum[r][0] = hn::MulAdd(v, b0, sum[r][0]);
      sum[r][1] = hn::MulAdd(v, b1, sum[r][1]);
    }
  }
  LOCKSTEP_UNROLL for (int r = 0; r < R; ++r) {
    LOCKSTEP_UNROLL for (int v = 0; v < kStripVecs; ++v) store(sum[r][v], c + r * kPanel + v * kVec);
  }
}

using Strip = decltype(&strip<1>);
template <int... I>
constexpr std::array<Strip, sizeof...(I)> strips(std::integer_sequence<int, I...>) {
  return {strip<I + 1>...};
}

}  // namespace

void products(const Product& p) {
  static constexpr auto of_rows = strips(std::make_integer_sequence<int, kStripRows>());
  static_assert(kPanel % (kStripVecs * kVec) == 0);
  for (int64_t s = 0; s < kSlices; ++s)
    for (int64_t r = 0; r < p.rows; r += kStripRows) {
      const int64_t rows = std::min<int64_t>(kStripRows, p.rows - r);
      for (int64_t column = 0; column < kPanel; column += kStripVecs * kVec)
        of_rows[static_cast<size_t>(rows - 1)](p.a.at(r) + s * p.a.slice, p.a.row, p.a_step,
                                               p.b.at(0, column) + s * p.b.slice, p.b.row,
                                               p.c.at(r, column) + s * p.c.slice, p.depth, p.add);
    }
}

void bias_sums(const float* dy, int64_t rows, int64_t pixels, int64_t all_channels, Range channels,
               float* db) {
  for (int64_t c = channels.first; c < channels.last; c += kVec) {
    const int64_t left = channels.last - c;
    Vec sum = hn::Zero(Floats());
    for (int64_t r = 0; r < rows; ++r) {
      Vec of_row = hn::Zero(Floats());
      for (int64_t i = 0; i < pixels; ++i)
        of_row = hn::Add(of_row, load(dy + (r * pixels + i) * all_channels + c, left));
      sum = hn::Add(sum, of_row);
    }
    store(sum, db + c, left);
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
HWY_EXPORT(products);
HWY_EXPORT(bias_sums);

void transform_data(const Tiling& t, const float* x, Range tiles, Range channels, Matrices to) {
  HWY_DYNAMIC_DISPATCH(data_windows)(t, x, tiles, channels, to);
}

void transform_output_grad(const Tiling& t, const float* dy, Range tiles, Range channels, Matrices to) {
  HWY_DYNAMIC_DISPATCH(output_grad_windows)(t, dy, tiles, channels, to);
}

void transform_output(const Tiling& t, Matrices from, Range tiles, Range channels, const float* bias,
                      Activation activation, float* y) {
  HWY_DYNAMIC_DISPATCH(output_windows)(t, from, tiles, channels, bias, activation, y);
}

void transform_filters(const Filters& f, Range inputs, Range outputs, Matrices to) {
  HWY_DYNAMIC_DISPATCH(filters)(f, inputs, outputs, to);
}

void transform_weight_grad(Matrices from, Range inputs, Range outputs, int64_t all_inputs, float* dw) {
  HWY_DYNAMIC_DISPATCH(weight_grad)(from, inputs, outputs, all_inputs, dw);
}

void multiply(const Product& p) { HWY_DYNAMIC_DISPATCH(products)(p); }

void bias_grad(const float* dy, int64_t rows, int64_t pixels, int64_t all_channels, Range channels,
               float* db) {
  HWY_DYNAMIC_DISPATCH(bias_sums)(dy, rows, pixels, all_channels, channels, db);
}

}  // namespace lockstep::winograd
#endif
