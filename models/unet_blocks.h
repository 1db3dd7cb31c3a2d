// SPDX-License-Identifier: Apache-2.0
// Parts of diffusers' UNets and autoencoders, under its tensor names: ResnetBlock2D, Downsample2D,
// Upsample2D, TimestepEmbedding (diffusers 0.42).
#pragma once

#include "models/blocks.h"

namespace lockstep {

enum class Resample : uint8_t { none, down, up };

struct ResnetBlock {
  int64_t groups = 32;
  double eps = 1e-5;
  Elt activation = Elt::silu;
  double dropout = 0;
  bool scale_shift = false;  // the time scales and shifts the second norm; else it is added before
  double divisor = 1;        // of the sum
};
// y = (shortcut(x) + conv2(dropout(act(norm2(conv1(act(norm1(x))) + time))))) / divisor, where shortcut is a
// 1x1 convolution if the channels differ. x [N, C, H, W] -> [N, out, H, W], or at half or twice the size;
// embedding [N, E], or kNoValue: the block has no time_emb_proj.
ValueId resnet_block(ModelContext& c, const ResnetBlock& block, ValueId x, ValueId embedding,
                     const std::string& name, int64_t out, Resample resample = Resample::none);

// Error config (78) E_SHAPE naming the key where an autoencoder's input is not [N, channels, H, W].
void expect_autoencoder_input(GraphBuilder& b, ValueId x, const char* key, int64_t channels);

// 3x3 at stride 2: [N, C, H, W] -> [N, C, ceil(H/2), ceil(W/2)]. padding 1: on all sides; 0: one row below
// and one column to the right, which makes [N, C, H/2, W/2], rounded down.
ValueId downsample_conv(GraphBuilder& b, ValueId x, const std::string& name, int64_t padding);
// Nearest neighbours at twice the size, or at this one, then a 3x3 convolution.
ValueId upsample_conv(GraphBuilder& b, ValueId x, const std::string& name);
ValueId upsample_conv(GraphBuilder& b, ValueId x, const std::string& name, int64_t height, int64_t width);

struct TimeEmbedding {
  int64_t sinusoids = 0, width = 0;
  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  Elt activation = Elt::silu;
};
// linear_2(activation(linear_1(sinusoids of numbers))): numbers [N] -> [N, width].
ValueId time_embedding(GraphBuilder& b, const TimeEmbedding& e, ValueId numbers, const std::string& name);

}  // namespace lockstep
