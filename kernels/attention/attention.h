// SPDX-License-Identifier: Apache-2.0
// Scaled dot-product attention between the pixels (tokens) of images, as PyTorch's
// scaled_dot_product_attention without mask: FlashAttention-2 (Dao: arXiv 2307.08691), whose memory grows
// with the number of tokens, not its square.
//
// Channels h*W .. h*W + W - 1 are head h of width W = C / heads. For every sample and head, with query i and
// key j:
//   s[i, j] = scale * sum over c of q[i, c] k[j, c]        lse[i] = log(sum over j of exp(s[i, j]))
//   p[i, j] = exp(s[i, j] - lse[i])                        o[i, c] = sum over j of p[i, j] v[j, c]
// and backwards, with delta[i] = sum over c of do[i, c] o[i, c]:
//   ds[i, j] = scale * p[i, j] (sum over c of do[i, c] v[j, c] - delta[i])
//   dq[i, c] = sum over j of ds[i, j] k[j, c]    dk[j, c] = sum over i of ds[i, j] q[i, c]
//   dv[j, c] = sum over i of p[i, j] do[i, c]
//
// Op                  inputs                    outputs
//   attention         q, k, v                   o, lse
//   attention_grad    q, k, v, o, lse, do       dq, dk, dv
// q, o, dq, do [N, C, H, W] (or [N, C, L]); k, v, dk, dv [N, C, H', W']: their tokens may be others, and more
// or fewer; heads divides C. All in one layout; in nhwc a token's channels are neighbours, in plain a
// channel's tokens. lse [N, heads, H*W], f32 always, in q's layout where that is lanes, else plain. bf16:
// products and sums in f32, p and ds rounded to bf16 before they are multiplied again.
#pragma once

#include <fmt/format.h>

#include <string>

namespace lockstep {

struct AttentionParams {
  int64_t heads = 1;
  float scale = 1;  // usually 1/sqrt(width of a head)
  std::string text() const { return fmt::format("heads={} scale={}", heads, scale); }
};

}  // namespace lockstep
