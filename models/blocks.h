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
#include "runtime/training/step_graph.h"

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
// [N, K] -> [N, out]
ValueId linear(GraphBuilder& b, ValueId x, const std::string& name, int64_t out, bool bias = true);
// A linear layer at every pixel: [N, C, H, W] -> [N, C, H, W], its weight [C, C].
ValueId project_pixels(GraphBuilder& b, ValueId x, const std::string& name);
// [N, C, ...] -> the same. Error config (78) E_SHAPE where `groups` does not divide C.
ValueId group_norm(GraphBuilder& b, ValueId x, const std::string& name, int64_t groups, double eps);

// relu, silu (swish is the same), gelu, tanh, sigmoid: PyTorch's names.
Elt activation_of(std::string_view name);
ValueId activate(GraphBuilder& b, ValueId x, Elt elt);
// x itself where p is 0, and outside training.
ValueId dropout(ModelContext& c, ValueId x, double p, bool channelwise = false);

// Attention between all pixels, as diffusers' Attention in UNet2DModel and AutoencoderKL:
// x + to_out.0(attention(to_q, to_k, to_v of group_norm(x))), with heads of C / heads channels. groups 0: no
// norm. Error config (78) E_SHAPE where `heads` does not divide C.
ValueId self_attention2d(GraphBuilder& b, ValueId x, const std::string& name, int64_t heads, int64_t groups,
                         double eps);

}  // namespace lockstep
