// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/lanes_winograd_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv2d/lanes_winograd_rows.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h
#include <algorithm>
#include <array>
#include <utility>

#include "kernels/conv2d/lanes_winograd_transforms-inl.h"
#include "kernels/simd/activate-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lockstep::HWY_NAMESPACE {
namespace {

using namespace lanes_winograd;
using namespace lanes_winograd_transforms;

constexpr int64_t kStripFloats = 12'000;  // of transformed rows, about: what the first caches hold
constexpr int64_t kGradientRows = 2;      // of dy at once

struct Strip {
  int64_t block, lane, first, count;  // rows
};

// Sizes of what a strip needs. Tiles of a row are taken in pairs: there may be one more than there are.
struct StripSizes {
  int64_t tiles, row, rows, points;
  explicit StripSizes(const Tiling& t) {
    tiles = (t.columns + 1) / 2 * 2;
    row = tiles * kVec;
    const int64_t floats = kSide * t.x.c * row;  // of a row at all points
    const int64_t most = std::max(kStripFloats / floats - (kTaps - 1), 2 * kGradientRows);
    rows = std::min(t.y.h, most / kGradientRows * kGradientRows);
    points = t.x.c * x_rows() * row + kLine;
  }
  int64_t x_rows() const { return (rows + kGradientRows - 1) / kGradientRows * kGradientRows + kTaps - 1; }
  int64_t of_vector(const Tiling& t) const { return (t.y.h + rows - 1) / rows; }
  int64_t outputs_step(const Tiling& t) const { return t.y.c * kGradientRows * row + kLine; }
};

Strip strip_at(const Tiling& t, const StripSizes& z, int64_t number) {
  const int64_t in_vector = number % z.of_vector(t), vector = number / z.of_vector(t);
  constexpr int64_t kVecs = kLanes / kVec;
  const int64_t first = in_vector * z.rows;
  return {vector / kVecs, vector % kVecs * kVec, first, std::min(z.rows, t.y.h - first)};
}

// One tile's places of a row of an image, `N` from `column`; outside zeros, in a copy.
template <int N>
HWY_INLINE const float* row_window(const float* plane, const Images& g, int64_t row, int64_t column,
                                   int64_t lane, float* copy, int64_t* step) {
  const bool row_inside = row >= 0 && row < g.h;
  const float* from = plane + (row * g.w + column) * kLanes + lane;
  *step = kLanes;
  if (row_inside && column >= 0 && column + N <= g.w) [[likely]]
    return from;
  *step = kVec;
  for (int64_t j = 0; j < N; ++j) {
    const bool inside = row_inside && column + j >= 0 && column + j < g.w;
    store(inside ? load(from + j * kLanes) : hn::Zero(Floats()), copy + j * kVec);
  }
  return copy;
}

// to[point][channel][row][tile] of the rows that the strip's taps touch.
void transform_rows(const Tiling& t, const StripSizes& z, const float* x, const Strip& s, float* to) {
  HWY_ALIGN float copy[kSide * kVec];
  const int64_t count = (s.count + kGradientRows - 1) / kGradientRows * kGradientRows + kTaps - 1;
  for (int64_t c = 0; c < t.x.c; ++c)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t k = 0; k < z.tiles; ++k) {
        int64_t step;
        const float* from =
            row_window<kSide>(x + s.block * t.x.block() + c * t.x.plane(), t.x, s.first + i - t.pad_top,
                              k * kStep - t.pad_left, s.lane, copy, &step);
        transform<Data>(from, step, to + (c * z.x_rows() + i) * z.row + k * kVec, z.points);
      }
}

// m[g] = start[g] + sum over rows of a filter and channels, for G outputs and the tiles of a row, two at a time; x is at
// the strip's row.
template <int G>
void row_product(const float* u, const float* x, int64_t channels, int64_t channel, int64_t row,
                 const float* start, float* m) {
  for (int64_t k = 0; k < row; k += 2 * kVec) {
    Vec sum[G][2];
    LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
      LOCKSTEP_UNROLL for (int q = 0; q < 2; ++q) sum[g][q] = hn::Set(Floats(), start ? start[g] : 0.0f);
    }
    const float* w = u;
    const float* from = x + k;
    for (int64_t c = 0; c < channels; ++c, from += channel) {
      LOCKSTEP_UNROLL for (int r = 0; r < kTaps; ++r, w += G) {
        const Vec v0 = load(from + r * row), v1 = load(from + r * row + kVec);
        LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
          const Vec f = hn::Set(Floats(), w[g]);
          sum[g][0] = hn::MulAdd(f, v0, sum[g][0]);
          sum[g][1] = hn::MulAdd(f, v1, sum[g][1]);
        }
      }
    }
    LOCKSTEP_UNROLL for (int g = 0; g < G; ++g) {
      LOCKSTEP_UNROLL for (int q = 0; q < 2; ++q) store(sum[g][q], m + g * row + k + q * kVec);
    }
  }
}
using RowProduct = decltype(&row_product<1>);
template <int... I>
constexpr std::array<RowProduct, sizeof...(I)> row_product_table(std::integer_sequence<int, I...>) {
  return {row_product<I + 1>...};
}

// sums[o][r] += sum over places of dy's rows times x's, for O outputs and the rows of their filters of one channel.
template <int O>
void gradient_product(const float* dy, int64_t output, const float* x, int64_t row, float* sums,
                      int64_t sums_output) {
  Vec sum[O][kTaps];
  LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) {
    LOCKSTEP_UNROLL for (int r = 0; r < kTaps; ++r) sum[o][r] = load(sums + o * sums_output + r * kVec);
  }
  for (int64_t i = 0; i < kGradientRows * row; i += kVec) {
    Vec e[O];
    LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) e[o] = load_once(dy + o * output + i);
    LOCKSTEP_UNROLL for (int r = 0; r < kTaps; ++r) {
      const Vec v = load_once(x + r * row + i);
      LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) sum[o][r] = hn::MulAdd(e[o], v, sum[o][r]);
    }
  }
  LOCKSTEP_UNROLL for (int o = 0; o < O; ++o) {
    LOCKSTEP_UNROLL for (int r = 0; r < kTaps; ++r) store(sum[o][r], sums + o * sums_output + r * kVec);
  }
}

}  // namespace

int64_t strips_of_block(const Tiling& t) { return kLanes / kVec * StripSizes(t).of_vector(t); }

int64_t floats_of_forward_strip(const Tiling& t) {
  const StripSizes z(t);
  return kSide * (z.points + t.y.c * z.row + kLine);
}

int64_t floats_of_weight_grad_strip(const Tiling& t) {
  const StripSizes z(t);
  constexpr int64_t kInDouble = sizeof(double) / sizeof(float);
  const int64_t finish = kSide * (t.y.c * t.x.c * kTaps + kDoubles) * kInDouble;
  return std::max(kSide * (z.points + z.outputs_step(t)), finish);
}

void transform_rows_of_filters(std::span<const int64_t> from, const float* w, float* u, int64_t row) {
  HWY_ALIGN float taps[kTaps][kVec];
  for (size_t f = 0; f < from.size(); f += kVec) {
    for (size_t k = 0; k < kVec; ++k)
      for (size_t i = 0; i < kTaps; ++i)
        taps[i][k] = f + k < from.size() ? w[from[f + k] + static_cast<int64_t>(i)] : 0;
    transform<Filter>(taps[0], kVec, u + f, row);
  }
}

void forward_of_strip(const Tiling& t, const float* x, const float* u, int64_t u_row, const float* bias,
                      Activation activation, float* y, int64_t strip, float* scratch) {
  static constexpr auto of_size = row_product_table(std::make_integer_sequence<int, kGroup>());
  const StripSizes z(t);
  const Strip s = strip_at(t, z, strip);
  const int64_t outputs = t.y.c, groups = groups_of(outputs), terms = t.x.c * kTaps,
                ms = outputs * z.row + kLine;
  float *data = scratch, *m = data + kSide * z.points;
  transform_rows(t, z, x, s, data);
  for (int64_t i = 0; i < s.count; ++i) {
    for (int64_t p = 0; p < kSide; ++p)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t o = group_begin(outputs, g), size = group_begin(outputs, g + 1) - o;
        of_size[static_cast<size_t>(size - 1)](
            u + p * u_row + o * terms, data + p * z.points + i * z.row, t.x.c, z.x_rows() * z.row, z.row,
            bias && p == kOne ? bias + o : nullptr, m + p * ms + o * z.row);
      }
    for (int64_t o = 0; o < outputs; ++o) {
      float* to = y + s.block * t.y.block() + o * t.y.plane() + (s.first + i) * t.y.w * kLanes + s.lane;
      for (int64_t k = 0; k < t.columns; ++k) {
        Vec v[kStep];
        transform<Output>(m + o * z.row + k * kVec, ms, v);
        if (activation != Activation::none)
          LOCKSTEP_UNROLL for (int j = 0; j < kStep; ++j) v[j] = activate(Floats(), activation, v[j]);
        const int64_t columns = std::min(kStep, t.y.w - k * kStep);
        if (columns == kStep) {
          LOCKSTEP_UNROLL for (int j = 0; j < kStep; ++j) store(v[j], to + (k * kStep + j) * kLanes);
        } else {
          for (int64_t j = 0; j < columns; ++j) store(v[j], to + (k * kStep + j) * kLanes);
        }
      }
    }
  }
}

int64_t sums_of_strips(const Tiling& t) { return kSide * t.y.c * t.x.c * kTaps + t.y.c; }

void weight_grad_of_strips(const Tiling& t, const float* x, const float* dy, int64_t first, int64_t last,
                           float* sums, float* scratch) {
  const StripSizes z(t);
  const int64_t outputs = t.y.c, filters = outputs * t.x.c * kTaps, es = z.outputs_step(t);
  const int64_t output = kGradientRows * z.row;  // of the transformed gradient
  float *data = scratch, *gradient = data + kSide * z.points, *db = sums + kSide * filters * kVec;
  HWY_ALIGN float copy[kStep * kVec];
  std::fill_n(sums, sums_of_strips(t) * kVec, 0.0f);
  for (int64_t strip = first; strip < last; ++strip) {
    const Strip s = strip_at(t, z, strip);
    transform_rows(t, z, x, s, data);
    for (int64_t i = 0; i < s.count; i += kGradientRows) {
      for (int64_t o = 0; o < outputs; ++o) {
        Vec total = load(db + o * kVec);
        for (int64_t r = 0; r < kGradientRows; ++r)
          for (int64_t k = 0; k < z.tiles; ++k) {
            int64_t step;
            // Rows behind the strip are another's.
            const int64_t row = i + r < s.count ? s.first + i + r : t.y.h;
            const float* from = row_window<kStep>(dy + s.block * t.y.block() + o * t.y.plane(), t.y, row,
                                                  k * kStep, s.lane, copy, &step);
            Vec e[kSide];
            transform<OutputGradient>(from, step, e);
            total = hn::Add(total, e[kOne]);
            float* to = gradient + o * output + r * z.row + k * kVec;
            LOCKSTEP_UNROLL for (int p = 0; p < kSide; ++p) store(e[p], to + p * es);
          }
        store(total, db + o * kVec);
      }
      for (int64_t p = 0; p < kSide; ++p)
        for (int64_t c = 0; c < t.x.c; ++c) {
          const float* from = data + p * z.points + (c * z.x_rows() + i) * z.row;
          float* to = sums + (p * filters + c * kTaps) * kVec;
          const int64_t step = t.x.c * kTaps * kVec;
          for (int64_t o = 0; o < outputs; o += 2)
            (o + 1 < outputs ? gradient_product<2> : gradient_product<1>)(gradient + p * es + o * output,
                                                                          output, from, z.row, to + o * step,
                                                                          step);
        }
    }
  }
}

void finish_all_strips(const Tiling& t, const float* sums, int64_t parts, float* dw, float* db,
                       double* scratch) {
  const int64_t filters = t.y.c * t.x.c * kTaps, count = sums_of_strips(t);
  const auto lanes_of = [&](int64_t i) {
    double lanes[kVec] = {}, sum = 0;
    for (int64_t p = 0; p < parts; ++p)
      for (int64_t l = 0; l < kVec; ++l)
        lanes[l] += static_cast<double>(sums[p * count * kLanes + i * kVec + l]);
    for (const double lane : lanes) sum += lane;
    return sum;
  };
  const int64_t row = (filters + kDoubles - 1) / kDoubles * kDoubles;
  for (int64_t p = 0; p < kSide; ++p)
    for (int64_t f = 0; f < row; ++f) scratch[p * row + f] = f < filters ? lanes_of(p * filters + f) : 0;
  for (int64_t o = 0; db && o < t.y.c; ++o) db[o] = static_cast<float>(lanes_of(kSide * filters + o));
  HWY_ALIGN double taps[kTaps][kDoubles];
  for (int64_t f = 0; f < filters; f += kDoubles) {
    transform<FilterGradient>(scratch + f, row, taps[0], kDoubles);
    for (int64_t k = 0; k < std::min<int64_t>(kDoubles, filters - f); ++k)
      for (int64_t i = 0; i < kTaps; ++i) dw[(f + k) * kTaps + i] = static_cast<float>(taps[i][k]);
  }
}

}  // namespace lockstep::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lockstep::lanes_winograd {

HWY_EXPORT(strips_of_block);
HWY_EXPORT(floats_of_forward_strip);
HWY_EXPORT(floats_of_weight_grad_strip);
HWY_EXPORT(transform_rows_of_filters);
HWY_EXPORT(forward_of_strip);
HWY_EXPORT(sums_of_strips);
HWY_EXPORT(weight_grad_of_strips);
HWY_EXPORT(finish_all_strips);

int64_t strips(const Tiling& t) { return HWY_DYNAMIC_DISPATCH(strips_of_block)(t); }

int64_t forward_strip_floats(const Tiling& t) { return HWY_DYNAMIC_DISPATCH(floats_of_forward_strip)(t); }

int64_t weight_grad_strip_floats(const Tiling& t) {
  return HWY_DYNAMIC_DISPATCH(floats_of_weight_grad_strip)(t);
}

void transform_filter_rows(std::span<const int64_t> from, const float* w, float* u, int64_t row) {
  HWY_DYNAMIC_DISPATCH(transform_rows_of_filters)(from, w, u, row);
}

void forward_strip(const Tiling& t, const float* x, const float* u, int64_t u_row, const float* bias,
                   Activation activation, float* y, int64_t strip, float* scratch) {
  HWY_DYNAMIC_DISPATCH(forward_of_strip)(t, x, u, u_row, bias, activation, y, strip, scratch);
}

int64_t strip_sums(const Tiling& t) { return HWY_DYNAMIC_DISPATCH(sums_of_strips)(t); }

void weight_grad_strips(const Tiling& t, const float* x, const float* dy, int64_t first, int64_t last,
                        float* sums, float* scratch) {
  HWY_DYNAMIC_DISPATCH(weight_grad_of_strips)(t, x, dy, first, last, sums, scratch);
}

void finish_strips(const Tiling& t, const float* sums, int64_t parts, float* dw, float* db, float* scratch) {
  HWY_DYNAMIC_DISPATCH(finish_all_strips)(t, sums, parts, dw, db, reinterpret_cast<double*>(scratch));
}

}  // namespace lockstep::lanes_winograd
#endif
