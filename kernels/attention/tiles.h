// SPDX-License-Identifier: Apache-2.0
// Geometry of the tiled CPU kernels, and the part of their work that is not a matrix product.
//
// A tile is 16, 32, 48 or 64 tokens side by side, one a column ("columns"), padded to full vectors: of a
// value, [width][columns]; of scores, [64 of the other tokens][columns]. No sum runs across columns, so a
// tile's products are gather_products and its softmax needs no reduction within a vector.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/core/kernel.h"

namespace lockstep {

inline constexpr int64_t kTileColumns = 64;  // tokens of a tile at most
inline constexpr int64_t kTileOthers = 64;   // tokens that it meets at once

// Tokens [L, width] of one head of one sample, at any strides; one of them is 1.
template <class Float>
struct Tokens {
  Float* data;
  int64_t token, channel;
  Float* at(int64_t i) const { return data + i * token; }
};

struct AttentionGeometry {
  int64_t n, heads, width, queries, keys;
  float scale;
  bool causal, channels_last;

  AttentionGeometry(const AttentionParams& p, const TensorSpec& q, const TensorSpec& k)
      : n(q.shape[0]),
        heads(p.heads),
        width(TokenSizes(q).channels / p.heads),
        queries(TokenSizes(q).tokens),
        keys(TokenSizes(k).tokens),
        scale(p.scale),
        causal(p.causal),
        channels_last(TokenSizes(q).channels_last) {}

  // Head `head` of all n*heads in a tensor of `length` tokens.
  template <class Float>
  Tokens<Float> tokens(Float* x, int64_t head, int64_t length) const {
    const int64_t sample = head / heads, first = head % heads * width, channels = heads * width;
    x += sample * channels * length;
    if (channels_last) return {x + first, channels, 1};
    return {x + first * length, 1, length};
  }
};

// How L tokens are cut into tiles: all about equal, multiples of 16 columns.
struct TileCut {
  int64_t length, tiles, per;
  explicit TileCut(int64_t l)
      : length(l),
        tiles((l + kTileColumns - 1) / kTileColumns),
        per(tiles == 0 ? 0 : ((l + tiles - 1) / tiles + kLanes - 1) / kLanes * kLanes) {
    tiles = per == 0 ? 0 : (l + per - 1) / per;
  }
  int64_t begin(int64_t tile) const { return tile * per; }
  int64_t count(int64_t tile) const { return std::min(per, length - begin(tile)); }
};

// [first, first + count) of x as a tile; columns past count are zero.
void load_tile(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width, float* tile,
               int64_t columns);
void store_tile(const float* tile, int64_t columns, const Tokens<float>& x, int64_t first, int64_t count,
                int64_t width);

// y[o, column] (+)= sum over s < sums of w[o * w_output + s * w_sum] * x[s, column]
struct TileProduct {
  const float* w;
  int64_t outputs, w_output, sums, w_sum;
  const float* x;
  float* y;
  int64_t columns;
  bool add;
};
void tile_product(const TileProduct&);

// Running softmax of `columns` queries.
struct Softmax {
  float *most, *sum;  // largest score so far, and the sum of exp(score - most)
  float* shrink;      // of what was accumulated before the last scores
};
// scores[others][columns], to be multiplied by scale, become exp(score - most).
void softmax_tile(float* scores, int64_t others, int64_t columns, float scale, const Softmax&);
// x[rows][columns] *= factor[column]
void scale_columns(float* x, int64_t rows, int64_t columns, const float* factor);
// Where queries [first_query, first_query + columns) may not meet keys from first_key on, scores become -inf.
void mask_causal(float* scores, int64_t first_key, int64_t keys, int64_t first_query, int64_t columns);
// sum becomes its reciprocal, most the logarithm of the sum of exp(score).
void softmax_finish(int64_t columns, const Softmax&);

// Of queries in columns: scores become p, dp becomes ds.
void gradient_tile(float* scores, float* dp, int64_t others, int64_t columns, float scale, const float* lse,
                   const float* delta);
// sum[column] = sum over rows of a[row, column] b[row, column]
void column_dots(const float* a, const float* b, int64_t rows, int64_t columns, float* sum);

}  // namespace lockstep
