// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/lanes_winograd_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/lanes_winograd_tile.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include <algorithm>
#include <array>
#include <utility>

#include "kernels/conv2d/lanes_winograd_transforms-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {
namespace {

using namespace lanes_winograd;
using namespace lanes_winograd_transforms;

constexpr int kVecs = kLanes / kVec;  // of a place
// Vectors: two tiles at once where a place is one, else two vectors of a place.
constexpr int kTogether = 2;
constexpr int64_t kPair = kTogether * kVec;

// One vector of a tile's places.
struct Item {
  int64_t block, row, column, lane;  // its place in tiles
};
HWY_INLINE Item item_at(const Tiling& t, int64_t item) {
  const int64_t tile = item / kVecs, in_block = tile % t.tiles();
  return {tile / t.tiles(), in_block / t.columns, in_block % t.columns, item % kVecs * kVec};
}
// Item `i` of some, or the last one once more.
HWY_INLINE Item item_of(const Tiling& t, int64_t i, int64_t end) { return item_at(t, std::min(i, end - 1)); }

// N x N places of a plane from (row, column); outside of it zeros, in a copy.
struct Window {
  const float* from;
  int64_t row;  // from one to the next
};
template <int N>
HWY_INLINE Window window(const float* plane, const Images& g, int64_t row, int64_t column, int64_t lane,
                         float* copy) {
  if (row >= 0 && column >= 0 && row + N <= g.h && column + N <= g.w) [[likely]]
    return {plane + (row * g.w + column) * kLanes + lane, g.w * kLanes};
  for (int64_t i = 0; i < N; ++i)
    for (int64_t j = 0; j < N; ++j) {
      const int64_t y = row + i, x = column + j;
      const bool inside = y >= 0 && y < g.h && x >= 0 && x < g.w;
      store(inside ? load(plane + (y * g.w + x) * kLanes + lane) : hn::Zero(Floats()),
            copy + (i * N + j) * kVec);
    }
  return {copy, 0};
}

// Column j of a window, transformed.
template <class T>
HWY_INLINE void transform_column(const Window& w, int64_t j, float* to, int64_t to_step) {
  w.row > 0 ? transform<T>(w.from + j * kLanes, w.row, to, to_step)
            : transform<T>(w.from + j * kVec, T::in * kVec, to, to_step);
}

HWY_INLINE Window x_window(const Tiling& t, const float* x, const Item& at, int64_t channel, float* copy) {
  return window<kSide>(x + at.block * t.x.block() + channel * t.x.plane(), t.x, at.row * kStep - t.pad_top,
                       at.column * kStep - t.pad_left, at.lane, copy);
}
HWY_INLINE Window y_window(const Tiling& t, const float* y, const Item& at, int64_t channel, float* copy) {
  return window<kStep>(y + at.block * t.y.block() + channel * t.y.plane(), t.y, at.row * kStep,
                       at.column * kStep, at.lane, copy);
}

// m[g] = sum over c of u[c][g] * v[c], for the G channels of a group; v's and m's are pairs of vectors.
template <int G>
void product(const float* u, const float* v, int64_t channels, float* m) {
  Vec sum[G][kTogether];
  LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
    LOCKSTEP_UNROLL for (int q = 0; q < kTogether; ++q) sum[g][q] = hn::Zero(Floats());
  }
  for (int64_t c = 0; c < channels; ++c, u += G, v += kPair) {
    const Vec v0 = load(v), v1 = load(v + kVec);
    LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
      const Vec w = hn::Set(Floats(), u[g]);
      sum[g][0] = hn::MulAdd(w, v0, sum[g][0]);
      sum[g][1] = hn::MulAdd(w, v1, sum[g][1]);
    }
  }
  LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
    LOCKSTEP_UNROLL for (int q = 0; q < kTogether; ++q) store(sum[g][q], m + g * kPair + q * kVec);
  }
}
using Product = decltype(&product<1>);
template <int... I>
constexpr std::array<Product, sizeof...(I)> product_table(std::integer_sequence<int, I...>) {
  return {product<I + 1>...};
}

// Groups [first, last) of a product's channels, at one point; m begins at the first of them.
void products(const float* u, const float* v, int64_t inputs, int64_t outputs, int64_t first, int64_t last,
              float* m) {
  static constexpr auto of_size = product_table(std::make_integer_sequence<int, kGroup>());
  for (int64_t g = first; g < last; ++g) {
    const int64_t o = group_begin(outputs, g), size = group_begin(outputs, g + 1) - o;
    of_size[static_cast<size_t>(size - 1)](u + o * inputs, v, inputs, m);
    m += size * kPair;
  }
}

// Distances between the matrices of points.
int64_t step_of(int64_t channels) { return channels * kPair + kLine; }

// G outputs by P inputs, whose rows of `n` floats are multiplied and summed.
template <int G, int P>
void tile_product(const float* dy, const float* x, int64_t n, double* sums, int64_t inputs, bool add) {
  Vec sum[G][P];
  LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
    LOCKSTEP_UNROLL for (int p = 0; p < P; ++p) sum[g][p] = hn::Zero(Floats());
  }
  for (int64_t i = 0; i < n; i += kVec) {
    Vec v[P];
    LOCKSTEP_UNROLL for (int p = 0; p < P; ++p) v[p] = load_once(x + p * n + i);
    LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
      const Vec e = load_once(dy + g * n + i);
      LOCKSTEP_UNROLL for (int p = 0; p < P; ++p) sum[g][p] = hn::MulAdd(e, v[p], sum[g][p]);
    }
  }
  LOCKSTEP_UNROLL for (int i = 0; i < G * P; i += 4) {
    const auto sum_at = [&](int k) { return k < G * P ? sum[k / P][k % P] : hn::Zero(Floats()); };
    const Vec four[4] = {sum_at(i), sum_at(i + 1), sum_at(i + 2), sum_at(i + 3)};
    float totals[4];
    sum_lanes(four, totals);
    LOCKSTEP_UNROLL for (int k = 0; k < 4; ++k) {
      if (i + k >= G * P) continue;
      double& to = sums[(i + k) / P * inputs + (i + k) % P];
      to = add ? to + static_cast<double>(totals[k]) : static_cast<double>(totals[k]);
    }
  }
}
using TileProduct = decltype(&tile_product<1, 1>);
template <int P, int... I>
constexpr std::array<TileProduct, sizeof...(I)> tile_product_table(std::integer_sequence<int, I...>) {
  return {tile_product<I + 1, P>...};
}

}  // namespace

void transform_all_filters(std::span<const int64_t> from, const float* w, float* u, int64_t row) {
  HWY_ALIGN float taps[kTaps * kTaps][kVec], half[kSide * kTaps][kVec];
  for (size_t f = 0; f < from.size(); f += kVec) {
    for (size_t k = 0; k < kVec; ++k)
      for (size_t i = 0; i < kTaps * kTaps; ++i)
        taps[i][k] = f + k < from.size() ? w[from[f + k] + static_cast<int64_t>(i)] : 0;
    for (int64_t j = 0; j < kTaps; ++j) transform<Filter>(taps[j], kTaps * kVec, half[j], kTaps * kVec);
    for (int64_t i = 0; i < kSide; ++i)
      transform<Filter>(half[i * kTaps], kVec, u + i * kSide * row + static_cast<int64_t>(f), row);
  }
}

void input_grad_tiles(const Tiling& t, const float* dy, const float* u, int64_t u_row, float* dx,
                      int64_t block, int64_t first, int64_t last, float* scratch) {
  const int64_t inputs = t.y.c, outputs = t.x.c;  // of this product
  const int64_t c0 = group_begin(outputs, first), count = group_begin(outputs, last) - c0;
  const int64_t es = step_of(inputs), ms = step_of(outputs);
  float *half = scratch, *data = half + kSide * kStep * es, *m = data + kSide * es,
        *half_out = m + kSide * ms;
  HWY_ALIGN float copy[kStep * kStep * kVec];
  float* to_block = dx + block * t.x.block() + c0 * t.x.plane();
  std::fill_n(to_block, count * t.x.plane(), 0.0f);
  const int64_t end = (block + 1) * t.tiles() * kVecs;
  for (int64_t item = block * t.tiles() * kVecs; item < end; item += kTogether) {
    for (int64_t q = 0; q < kTogether; ++q) {
      const Item at = item_of(t, item + q, end);
      for (int64_t o = 0; o < inputs; ++o) {
        const Window w = y_window(t, dy, at, o, copy);
        for (int64_t j = 0; j < kStep; ++j)
          transform_column<OutputGradient>(w, j, half + j * es + (o * kTogether + q) * kVec, kStep * es);
      }
    }
    for (int64_t i = 0; i < kSide; ++i) {
      for (int64_t o = 0; o < inputs * kTogether; ++o)
        transform<OutputGradient>(half + i * kStep * es + o * kVec, es, data + o * kVec, es);
      for (int64_t j = 0; j < kSide; ++j)
        products(u + (i * kSide + j) * u_row, data + j * es, inputs, outputs, first, last, m + j * ms);
      for (int64_t c = 0; c < count * kTogether; ++c)
        transform<DataTransposed>(m + c * kVec, ms, half_out + i * kSide * ms + c * kVec, ms);
    }
    for (int64_t q = 0; q < std::min<int64_t>(kTogether, end - item); ++q) {
      const Item at = item_at(t, item + q);
      const int64_t row = at.row * kStep - t.pad_top, column = at.column * kStep - t.pad_left;
      const int64_t i0 = std::max<int64_t>(0, -row), i1 = std::min(kSide, t.x.h - row);
      for (int64_t c = 0; c < count; ++c) {
        float* to = to_block + c * t.x.plane() + at.lane;
        for (int64_t j = std::max<int64_t>(0, -column); j < std::min(kSide, t.x.w - column); ++j) {
          Vec v[kSide];
          transform<DataTransposed>(half_out + j * ms + (c * kTogether + q) * kVec, kSide * ms, v);
          const auto place = [&](int64_t i) { return to + ((row + i) * t.x.w + column + j) * kLanes; };
          if (i0 == 0 && i1 == kSide) {
            LOCKSTEP_UNROLL for (int i = 0; i < kSide; ++i) store(hn::Add(load(place(i)), v[i]), place(i));
          } else {
            for (int64_t i = i0; i < i1; ++i) store(hn::Add(load(place(i)), v[i]), place(i));
          }
        }
      }
    }
  }
}

void data_of_tiles(const Tiling& t, const float* x, TileRange tiles, int64_t channel, float* to,
                   int64_t matrix) {
  HWY_ALIGN float copy[kPoints * kVec], half[kPoints * kVec];
  for (int64_t i = 0; i < tiles.count * kVecs; ++i, to += kVec) {
    const Window w = x_window(t, x, item_at(t, tiles.first * kVecs + i), channel, copy);
    for (int64_t j = 0; j < kSide; ++j) transform_column<Data>(w, j, half + j * kVec, kSide * kVec);
    for (int64_t r = 0; r < kSide; ++r)
      transform<Data>(half + r * kSide * kVec, kVec, to + r * kSide * matrix, matrix);
  }
}

void gradient_of_tiles(const Tiling& t, const float* dy, TileRange tiles, int64_t channel, float* to,
                       int64_t matrix) {
  HWY_ALIGN float copy[kStep * kStep * kVec], half[kSide * kStep * kVec];
  for (int64_t i = 0; i < tiles.count * kVecs; ++i, to += kVec) {
    const Window w = y_window(t, dy, item_at(t, tiles.first * kVecs + i), channel, copy);
    for (int64_t j = 0; j < kStep; ++j) transform_column<OutputGradient>(w, j, half + j * kVec, kStep * kVec);
    for (int64_t r = 0; r < kSide; ++r)
      transform<OutputGradient>(half + r * kStep * kVec, kVec, to + r * kSide * matrix, matrix);
  }
}

void product_of_tiles(int64_t outputs, int64_t inputs, int64_t tiles, const float* dy, const float* x,
                      double* sums, bool add) {
  static constexpr auto of_two = tile_product_table<2>(std::make_integer_sequence<int, kGroup>());
  static constexpr auto of_one = tile_product_table<1>(std::make_integer_sequence<int, kGroup>());
  const int64_t n = tiles * kLanes;
  for (int64_t g = 0; g < groups_of(outputs); ++g) {
    const int64_t o = group_begin(outputs, g);
    const auto size = static_cast<size_t>(group_begin(outputs, g + 1) - o);
    for (int64_t c = 0; c < inputs; c += 2)
      (c + 1 < inputs ? of_two : of_one)[size - 1](dy + o * n, x + c * n, n, sums + o * inputs + c, inputs,
                                                   add);
  }
}

float sum_of_matrix(const float* matrix, int64_t tiles) {
  Vec sum = hn::Zero(Floats());
  for (int64_t i = 0; i < tiles * kLanes; i += kVec) sum = hn::Add(sum, load(matrix + i));
  return hn::GetLane(hn::SumOfLanes(Floats(), sum));
}

void transform_all_back(const double* sums, int64_t row, int64_t filters, float* dw) {
  HWY_ALIGN double half[kSide * kTaps][kDoubles], taps[kTaps * kTaps][kDoubles];
  for (int64_t f = 0; f < filters; f += kDoubles) {
    for (int64_t i = 0; i < kSide; ++i)
      transform<FilterGradient>(sums + i * kSide * row + f, row, half[i * kTaps], kDoubles);
    for (int64_t j = 0; j < kTaps; ++j)
      transform<FilterGradient>(half[j], kTaps * kDoubles, taps[j], kTaps * kDoubles);
    for (int64_t k = 0; k < std::min<int64_t>(kDoubles, filters - f); ++k)
      for (int64_t i = 0; i < kTaps * kTaps; ++i)
        dw[(f + k) * kTaps * kTaps + i] = static_cast<float>(taps[i][k]);
  }
}

int64_t floats_of_input_grad(const Tiling& t) {
  return (kSide * kStep + kSide) * step_of(t.y.c) + (kSide + kPoints) * step_of(t.x.c);
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::lanes_winograd {

HWY_EXPORT(transform_all_filters);
HWY_EXPORT(floats_of_input_grad);
HWY_EXPORT(input_grad_tiles);
HWY_EXPORT(data_of_tiles);
HWY_EXPORT(gradient_of_tiles);
HWY_EXPORT(product_of_tiles);
HWY_EXPORT(sum_of_matrix);
HWY_EXPORT(transform_all_back);

void transform_filters(std::span<const int64_t> from, const float* w, float* u, int64_t row) {
  HWY_DYNAMIC_DISPATCH(transform_all_filters)(from, w, u, row);
}

int64_t input_grad_floats(const Tiling& t) { return HWY_DYNAMIC_DISPATCH(floats_of_input_grad)(t); }

void input_grad(const Tiling& t, const float* dy, const float* u, int64_t u_row, float* dx, int64_t block,
                int64_t first, int64_t last, float* scratch) {
  HWY_DYNAMIC_DISPATCH(input_grad_tiles)(t, dy, u, u_row, dx, block, first, last, scratch);
}

void transform_data(const Tiling& t, const float* x, TileRange tiles, int64_t channel, float* to,
                    int64_t matrix) {
  HWY_DYNAMIC_DISPATCH(data_of_tiles)(t, x, tiles, channel, to, matrix);
}

void transform_gradient(const Tiling& t, const float* dy, TileRange tiles, int64_t channel, float* to,
                        int64_t matrix) {
  HWY_DYNAMIC_DISPATCH(gradient_of_tiles)(t, dy, tiles, channel, to, matrix);
}

void multiply_tiles(int64_t outputs, int64_t inputs, int64_t tiles, const float* dy, const float* x,
                    double* sums, bool add) {
  HWY_DYNAMIC_DISPATCH(product_of_tiles)(outputs, inputs, tiles, dy, x, sums, add);
}

float sum_of_tiles(const float* matrix, int64_t tiles) {
  return HWY_DYNAMIC_DISPATCH(sum_of_matrix)(matrix, tiles);
}

void transform_back(const double* sums, int64_t row, int64_t filters, float* dw) {
  HWY_DYNAMIC_DISPATCH(transform_all_back)(sums, row, filters, dw);
}

}  // namespace lockstep::lanes_winograd
#endif
