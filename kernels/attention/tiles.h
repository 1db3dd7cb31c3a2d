// SPDX-License-Identifier: Apache-2.0
// Geometry of the tiled CPU kernels, and the part of their work that is not a matrix product.
//
// A tile is a panel of 32 tokens side by side, one a column; where fewer are left the others are zero. Of a value it is
// [width][32], of scores [up to 96 of the other tokens][32]. No sum runs across columns, so a tile's products are
// panel products and its softmax needs no reduction within a vector.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/core/kernel.h"
#include "kernels/simd/panel_product.h"

namespace lockstep {

inline constexpr int64_t kTileOthers =
    96;  // tokens that a tile meets at once: whole strips of all instruction sets

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

inline int64_t tiles_of(int64_t tokens) { return (tokens + kPanel - 1) / kPanel; }

// Tokens [first, first + count) as a tile, and back.
void load_tile(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width, float* tile);
void store_tile(const float* tile, const Tokens<float>& x, int64_t first, int64_t count, int64_t width);

// y[token, column] = sum over c of x[first + token, c] * tile[c, column], for `count` tokens.
void product_over_channels(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width,
                           const float* tile, float* y);
// y[c, column] = (y[c, column] if add +) sum over tokens of x[first + token, c] * weights[token, column]
void product_over_tokens(const Tokens<const float>& x, int64_t first, int64_t count, int64_t width,
                         const float* weights, float* y, bool add);

// Running softmax of a tile of queries.
struct Softmax {
  float *most, *sum;  // largest score so far, and the sum of exp(score - most)
  float* shrink;      // of what was accumulated before the last scores
};
// scores[others][32], to be multiplied by scale, become exp(score - most).
void softmax_tile(float* scores, int64_t others, float scale, const Softmax&);
// x[rows][32] *= factor[column]
void scale_columns(float* x, int64_t rows, const float* factor);
// Where queries from first_query on, one a column, may not meet keys from first_key on, scores become -inf.
void mask_causal(float* scores, int64_t first_key, int64_t keys, int64_t first_query);
// sum becomes its reciprocal, most the logarithm of the sum of exp(score).
void softmax_finish(const Softmax&);

// Of queries in columns: scores become p, dp becomes ds.
void gradient_tile(float* scores, float* dp, int64_t others, float scale, const float* lse,
                   const float* delta);
// sum[column] = sum over rows of a[row, column] b[row, column]
void column_dots(const float* a, const float* b, int64_t rows, float* sum);

}  // namespace lockstep
