// SPDX-License-Identifier: Apache-2.0
#include "models/autoencoder_tiny.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/resample/resample.h"
#include "models/blocks.h"
#include "models/config_check.h"
#include "models/unet_blocks.h"

namespace lockstep {
namespace {

using std::string;

constexpr float kLatentMagnitude = 3;  // fixed in diffusers' decoder, whatever latent_magnitude is

// Encoder or decoder: a sequence of layers, named by their places in it.
class TinySequence {
 public:
  TinySequence(const AutoencoderTinyConfig& config, ModelContext& context, string root)
      : b_(context.builder), act_(activation_of(config.act_fn)), root_(std::move(root)) {}

  ValueId conv(ValueId x, int64_t out, bool bias = true, int64_t stride = 1) {
    return conv3x3(x, next(), out, bias, stride);
  }

  ValueId activation(ValueId x) {
    b_.set_scope(next());
    return activate(b_, x, act_);
  }

  // AutoencoderTinyBlock: relu(x + conv(act(conv(act(conv(x))))))
  ValueId block(ValueId x) {
    const string name = next();
    b_.set_block(name);
    const int64_t c = b_.spec(x).shape[1];
    ValueId h = activate(b_, conv3x3(x, name + ".conv.0", c), act_);
    h = activate(b_, conv3x3(h, name + ".conv.2", c), act_);
    h = conv3x3(h, name + ".conv.4", c);
    b_.set_scope(name);
    const ValueId y = activate(b_, b_.elementwise(Elt::add, {h, x}), Elt::relu);
    b_.set_block("");
    return y;
  }

  ValueId upsample(ValueId x) {
    b_.set_scope(next());
    const Shape& s = b_.spec(x).shape;
    return b_.add1("upsample_nearest2d", UpsampleNearest2dParams{2 * s[2], 2 * s[3]}, {x});
  }

 private:
  string next() { return fmt::format("{}.layers.{}", root_, layers_++); }

  ValueId conv3x3(ValueId x, const string& name, int64_t out, bool bias = true, int64_t stride = 1) {
    Conv2dParams p;
    p.pad_top = p.pad_bottom = p.pad_left = p.pad_right = 1;
    p.stride_h = p.stride_w = stride;
    return conv2d(b_, x, name, {out, b_.spec(x).shape[1], 3, 3}, p, bias);
  }

  GraphBuilder& b_;
  const Elt act_;
  const string root_;
  int layers_ = 0;
};

}  // namespace

void check(const AutoencoderTinyConfig& k) {
  const ConfigCheck check("E_VAE");
  const size_t levels = k.num_encoder_blocks.size();
  check.expect_levels("num_encoder_blocks", levels);
  const auto expect_levels = [&](const char* key, const std::vector<int64_t>& list) {
    if (list.size() != levels)
      check.refuse(key, fmt::format("{} entries for {} of num_encoder_blocks", list.size(), levels));
  };
  expect_levels("num_decoder_blocks", k.num_decoder_blocks);
  expect_levels("encoder_block_out_channels", k.encoder_block_out_channels);
  expect_levels("decoder_block_out_channels", k.decoder_block_out_channels);
  const auto expect_equal = [&](const char* key, const std::vector<int64_t>& list) {
    if (std::ranges::any_of(list, [&](int64_t c) { return c != list[0]; }))
      check.refuse(
          key, fmt::format("{} differ: no layer changes the channels between levels", fmt::join(list, ", ")));
  };
  expect_equal("encoder_block_out_channels", k.encoder_block_out_channels);
  expect_equal("decoder_block_out_channels", k.decoder_block_out_channels);
  check.expect_choice("act_fn", k.act_fn, {"relu", "silu", "swish", "gelu"});
}

ValueId encode(const AutoencoderTinyConfig& k, ModelContext& context, ValueId image) {
  GraphBuilder& b = context.builder;
  expect_autoencoder_input(b, image, "in_channels", k.in_channels);
  b.set_scope("encoder");
  // It works on [0, 1].
  ValueId x = b.elementwise(Elt::scale, {b.elementwise(Elt::add_imm, {image}, 1)}, 0.5F);
  TinySequence encoder(k, context, "encoder");
  for (size_t i = 0; i < k.num_encoder_blocks.size(); ++i) {
    const int64_t c = k.encoder_block_out_channels[i];
    x = i == 0 ? encoder.conv(x, c) : encoder.conv(x, c, false, 2);
    for (int64_t j = 0; j < k.num_encoder_blocks[i]; ++j) x = encoder.block(x);
  }
  return encoder.conv(x, k.latent_channels);
}

ValueId decode(const AutoencoderTinyConfig& k, ModelContext& context, ValueId latents) {
  GraphBuilder& b = context.builder;
  expect_autoencoder_input(b, latents, "latent_channels", k.latent_channels);
  b.set_scope("decoder");
  ValueId x = b.elementwise(Elt::tanh, {b.elementwise(Elt::scale, {latents}, 1 / kLatentMagnitude)});
  x = b.elementwise(Elt::scale, {x}, kLatentMagnitude);
  TinySequence decoder(k, context, "decoder");
  x = decoder.activation(decoder.conv(x, k.decoder_block_out_channels[0]));
  const size_t levels = k.num_decoder_blocks.size();
  for (size_t i = 0; i < levels; ++i) {
    for (int64_t j = 0; j < k.num_decoder_blocks[i]; ++j) x = decoder.block(x);
    if (i + 1 < levels) x = decoder.conv(decoder.upsample(x), k.decoder_block_out_channels[i], false);
  }
  x = decoder.conv(x, k.out_channels);
  b.set_scope("decoder");
  return b.elementwise(Elt::add_imm, {b.elementwise(Elt::scale, {x}, 2)}, -1);
}

nlohmann::ordered_json to_json(const AutoencoderTinyConfig& k) {
  return {{"_class_name", "AutoencoderTiny"},
          {"_diffusers_version", "0.42.1"},
          {"act_fn", k.act_fn},
          {"decoder_block_out_channels", k.decoder_block_out_channels},
          {"encoder_block_out_channels", k.encoder_block_out_channels},
          {"in_channels", k.in_channels},
          {"latent_channels", k.latent_channels},
          {"num_decoder_blocks", k.num_decoder_blocks},
          {"num_encoder_blocks", k.num_encoder_blocks},
          {"out_channels", k.out_channels},
          {"scaling_factor", k.scaling_factor}};
}

}  // namespace lockstep
