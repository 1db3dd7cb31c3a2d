// SPDX-License-Identifier: Apache-2.0
// Scaled dot-product attention between tokens, or the pixels of images, as PyTorch's
// scaled_dot_product_attention: FlashAttention-2 (Dao: arXiv 2307.08691), whose memory grows with the number
// of tokens, not its square.
//
// Channels h*W .. h*W + W - 1 are head h of width W = C / heads. For every sample and head, with query i and
// key j:
//   s[i, j] = scale * sum over c of q[i, c] k[j, c]        lse[i] = log(sum over j of exp(s[i, j]))
// where, if causal, a query meets only the keys j <= i (PyTorch's is_causal);
//   p[i, j] = exp(s[i, j] - lse[i])                        o[i, c] = sum over j of p[i, j] v[j, c]
// and backwards, with delta[i] = sum over c of do[i, c] o[i, c]:
//   ds[i, j] = scale * p[i, j] (sum over c of do[i, c] v[j, c] - delta[i])
//   dq[i, c] = sum over j of ds[i, j] k[j, c]    dk[j, c] = sum over i of ds[i, j] q[i, c]
//   dv[j, c] = sum over i of p[i, j] do[i, c]
//
// Op                  inputs                    outputs
//   attention         q, k, v                   o, lse
//   attention_grad    q, k, v, o, lse, do       dq, dk, dv
// Tokens: q, o, dq, do [N, L, C]; k, v, dk, dv [N, L', C]. Images: [N, C, H, W] and [N, C, H', W'], whose tokens
// are their pixels. Keys may be more or fewer than queries, at least one; heads divides C. All in one layout;
// of tokens, and of images in nhwc, a token's channels are neighbours, of plain images a channel's tokens.
// lse [N, heads, L], f32 always, in q's layout where that is lanes, else plain. bf16: products and sums in f32,
// p and ds rounded to bf16 before they are multiplied again.
#pragma once

#include <fmt/format.h>

#include <string>

#include "kernels/core/tensor.h"

namespace lockstep {

struct AttentionParams {
  int64_t heads = 1;
  float scale = 1;      // usually 1/sqrt(width of a head)
  bool causal = false;  // wants a scale above 0
  std::string text() const {
    return fmt::format("heads={} scale={}{}", heads, scale, causal ? " causal" : "");
  }
};

// How tokens lie in a tensor of either kind.
struct TokenSizes {
  int64_t channels, tokens;
  bool channels_last;  // a token's channels are neighbours
  explicit TokenSizes(const TensorSpec& x)
      : channels(x.shape[x.shape.rank() == 3 ? 2 : 1]),
        tokens(x.shape.rank() == 3 ? x.shape[1] : x.shape.elements_from(2)),
        channels_last(x.shape.rank() == 3 || x.layout == Layout::nhwc) {}
};

}  // namespace lockstep
