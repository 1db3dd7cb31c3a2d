// SPDX-License-Identifier: Apache-2.0
// Layers that models have in common, as functions that add nodes and parameters to a graph.
//
// Each sets the builder's scope to `name`, and its tensors are "<name>.weight" and "<name>.bias" (PyTorch's).
// Initial values come from PyTorch's default distributions unless a function takes others.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "kernels/conv2d/conv2d.h"
#include "runtime/graph/program.h"

namespace lockstep {

// Uniform within 1/sqrt(fan_in), for weight and bias alike: what kaiming_uniform_(a = sqrt 5) of
// torch.nn.Linear.reset_parameters comes to.
Init uniform_init(int64_t fan_in);
Init normal_init(double deviation);
Init constant_init(float value);

// [N, C, H, W] -> [N, weight[0], H', W']. weight: [out, C / groups, h, w].
ValueId conv2d(GraphBuilder& b, ValueId x, const std::string& name, const Shape& weight,
               const Conv2dParams& params, bool bias = true, std::optional<Init> weight_init = {});
// A square window with an odd edge, which keeps the size at stride 1.
ValueId conv2d(GraphBuilder& b, ValueId x, const std::string& name, int64_t out, int64_t kernel = 3);
// [N, K] -> [N, out], or tokens [N, L, K] -> [N, L, out]
ValueId linear(GraphBuilder& b, ValueId x, const std::string& name, int64_t out, bool bias = true);
// The same with these initial values, the weight's and the bias's.
ValueId linear(GraphBuilder& b, ValueId x, const std::string& name, int64_t out, const Init& weight,
               const Init& bias);
// From C channels to C at every pixel: [N, C, H, W] -> the same. Its weight is a linear layer's, [C, C], or a
// 1x1 convolution's.
enum class Pointwise : uint8_t { linear, conv2d };
ValueId project_pixels(GraphBuilder& b, ValueId x, const std::string& name, Pointwise weight);
// [N, C, ...] -> the same. Error config (78) E_SHAPE where `groups` does not divide C.
ValueId group_norm(GraphBuilder& b, ValueId x, const std::string& name, int64_t groups, double eps);

// Over the last dimension, of any shape.
ValueId layer_norm(GraphBuilder& b, ValueId x, const std::string& name, double eps);

// relu, silu (swish is the same), gelu, tanh, sigmoid: PyTorch's names; quick_gelu: transformers'.
Elt activation_of(std::string_view name);
ValueId activate(GraphBuilder& b, ValueId x, Elt elt);
// x itself where p is 0, and outside training.
ValueId dropout(ModelContext& c, ValueId x, double p, bool channelwise = false);

// Of `heads` heads of C / heads channels each, whose scores are scaled by 1/sqrt of that number: q [N, L, C], k
// and v [N, L', C], or images [N, C, H, W] -> as q. causal: a query meets the keys up to its own place.
ValueId attention(GraphBuilder& b, ValueId q, ValueId k, ValueId v, int64_t heads, bool causal = false);

// Attention between all pixels, as diffusers' Attention in UNet2DModel and AutoencoderKL:
// x + to_out.0(attention(to_q, to_k, to_v of group_norm(x))), with heads of C / heads channels. groups 0: no
// norm. Error config (78) E_SHAPE where `heads` does not divide C.
ValueId self_attention2d(GraphBuilder& b, ValueId x, const std::string& name, int64_t heads, int64_t groups,
                         double eps);

}  // namespace lockstep
