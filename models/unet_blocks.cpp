// SPDX-License-Identifier: Apache-2.0
#include "models/unet_blocks.h"

#include "kernels/concat/concat.h"
#include "kernels/pool2d/pool2d.h"
#include "kernels/resample/resample.h"
#include "kernels/timestep_embedding/timestep_embedding.h"

namespace lockstep {

using std::string;

namespace {

ValueId twice(GraphBuilder& b, ValueId x) {
  const Shape& s = b.spec(x).shape;
  return b.add1("upsample_nearest2d", UpsampleNearest2dParams{2 * s[2], 2 * s[3]}, {x});
}

ValueId half(GraphBuilder& b, ValueId x) {
  Pool2dParams p;
  p.kernel_h = p.kernel_w = p.stride_h = p.stride_w = 2;
  return b.add1("avg_pool2d", p, {x});
}

}  // namespace

ValueId resnet_block(ModelContext& c, const ResnetBlock& k, ValueId x, ValueId embedding, const string& name,
                     int64_t out, Resample resample) {
  GraphBuilder& b = c.builder;
  const auto norm = [&](ValueId v, const char* part) {
    return group_norm(b, v, name + part, k.groups, k.eps);
  };
  b.set_block(name);
  ValueId h = activate(b, norm(x, ".norm1"), k.activation);
  if (resample != Resample::none) {
    b.set_scope(name);
    const auto resize = [&](ValueId v) { return resample == Resample::down ? half(b, v) : twice(b, v); };
    h = resize(h);
    x = resize(x);
  }
  h = conv2d(b, h, name + ".conv1", out);
  ValueId time = kNoValue;
  if (embedding != kNoValue)
    time = linear(b, embedding, name + ".time_emb_proj", k.scale_shift ? 2 * out : out);
  if (time != kNoValue && !k.scale_shift) h = b.add1("scale_shift", NoParams{}, {h, time});
  h = norm(h, ".norm2");
  if (time != kNoValue && k.scale_shift) {
    const ValueId factor = b.add1("slice_channels", SliceChannelsParams{0, out}, {time});
    const ValueId shift = b.add1("slice_channels", SliceChannelsParams{out, out}, {time});
    h = b.add1("scale_shift", NoParams{}, {h, factor, shift});
  }
  h = dropout(c, activate(b, h, k.activation), k.dropout);
  h = conv2d(b, h, name + ".conv2", out);
  if (b.spec(x).shape[1] != out) x = conv2d(b, x, name + ".conv_shortcut", out, 1);
  b.set_scope(name);
  ValueId y = b.elementwise(Elt::add, {x, h});
  if (k.divisor != 1) y = b.elementwise(Elt::scale, {y}, static_cast<float>(1 / k.divisor));
  b.set_block("");
  return y;
}

void expect_autoencoder_input(GraphBuilder& b, ValueId x, const char* key, int64_t channels) {
  const Shape& shape = b.spec(x).shape;
  if (shape.rank() != 4 || shape[1] != channels)
    throw Error(
        Exit::config, "E_SHAPE",
        fmt::format("the autoencoder takes {} channels ({}), its input is {}", channels, key, shape.text()));
}

ValueId downsample_conv(GraphBuilder& b, ValueId x, const string& name, int64_t padding) {
  Conv2dParams p;
  p.stride_h = p.stride_w = 2;
  p.pad_bottom = p.pad_right = 1;
  p.pad_top = p.pad_left = padding;
  const int64_t c = b.spec(x).shape[1];
  return conv2d(b, x, name, {c, c, 3, 3}, p);
}

ValueId upsample_conv(GraphBuilder& b, ValueId x, const string& name) {
  const Shape& in = b.spec(x).shape;
  return upsample_conv(b, x, name, 2 * in[2], 2 * in[3]);
}

ValueId upsample_conv(GraphBuilder& b, ValueId x, const string& name, int64_t height, int64_t width) {
  b.set_scope(name);
  const int64_t c = b.spec(x).shape[1];
  x = b.add1("upsample_nearest2d", UpsampleNearest2dParams{height, width}, {x});
  return conv2d(b, x, name, c);
}

ValueId time_embedding(GraphBuilder& b, const TimeEmbedding& e, ValueId numbers, const string& name) {
  TimestepEmbeddingParams p;
  p.dim = e.sinusoids;
  p.flip_sin_to_cos = e.flip_sin_to_cos;
  p.freq_shift = e.freq_shift;
  const ValueId sinusoids = b.add1("timestep_embedding", p, {numbers});
  const ValueId hidden = activate(b, linear(b, sinusoids, name + ".linear_1", e.width), e.activation);
  return linear(b, hidden, name + ".linear_2", e.width);
}

}  // namespace lockstep
