// SPDX-License-Identifier: Apache-2.0
#include "models/autoencoder_kl.h"

#include <nlohmann/json.hpp>

#include "models/config_check.h"
#include "models/unet_blocks.h"

namespace lockstep {
namespace {

using std::string;

constexpr double kNormEps = 1e-6;

// Encoder or decoder, whose tensors are below `root`.
class AutoencoderPart {
 public:
  AutoencoderPart(const AutoencoderKlConfig& config, ModelContext& context, string root)
      : k_(config), c_(context), b_(context.builder), root_(std::move(root)) {}

  ValueId conv_in(ValueId x, int64_t out) { return conv2d(b_, x, root_ + ".conv_in", out); }

  ValueId resnet(ValueId x, const string& name, int64_t out) {
    const ResnetBlock block{k_.norm_num_groups, kNormEps, activation_of(k_.act_fn)};
    return resnet_block(c_, block, x, kNoValue, root_ + name, out);
  }

  ValueId mid_block(ValueId x) {
    const int64_t c = k_.block_out_channels.back();
    x = resnet(x, ".mid_block.resnets.0", c);
    if (k_.mid_block_add_attention) {
      const string name = root_ + ".mid_block.attentions.0";
      b_.set_block(name);
      x = self_attention2d(b_, x, name, 1, k_.norm_num_groups, kNormEps);
      b_.set_block("");
    }
    return resnet(x, ".mid_block.resnets.1", c);
  }

  ValueId conv_out(ValueId x, int64_t out) {
    x = group_norm(b_, x, root_ + ".conv_norm_out", k_.norm_num_groups, kNormEps);
    return conv2d(b_, activate(b_, x, Elt::silu), root_ + ".conv_out", out);
  }

 private:
  const AutoencoderKlConfig& k_;
  ModelContext& c_;
  GraphBuilder& b_;
  const string root_;
};

}  // namespace

void check(const AutoencoderKlConfig& k) {
  const ConfigCheck check("E_VAE");
  const size_t levels = k.block_out_channels.size();
  check.expect_levels("block_out_channels", levels);
  check.expect_size("down_block_types", k.down_block_types.size(), levels);
  check.expect_size("up_block_types", k.up_block_types.size(), levels);
  for (const auto& t : k.down_block_types) check.expect_choice("down_block_types", t, {"DownEncoderBlock2D"});
  for (const auto& t : k.up_block_types) check.expect_choice("up_block_types", t, {"UpDecoderBlock2D"});
  check.expect_choice("act_fn", k.act_fn, {"silu", "swish", "relu", "gelu"});
  if (k.sample_size.size() > 2) check.refuse("sample_size", "one number, or [height, width]");
  for (int64_t c : k.block_out_channels)
    check.expect_divides("norm_num_groups", k.norm_num_groups, "groups", c);
}

ValueId encode(const AutoencoderKlConfig& k, ModelContext& context, ValueId image) {
  GraphBuilder& b = context.builder;
  expect_autoencoder_input(b, image, "in_channels", k.in_channels);
  AutoencoderPart encoder(k, context, "encoder");
  ValueId x = encoder.conv_in(image, k.block_out_channels[0]);
  for (size_t i = 0; i < k.block_out_channels.size(); ++i) {
    const string name = fmt::format(".down_blocks.{}", i);
    for (int64_t j = 0; j < k.layers_per_block; ++j)
      x = encoder.resnet(x, fmt::format("{}.resnets.{}", name, j), k.block_out_channels[i]);
    if (i + 1 < k.block_out_channels.size())
      x = downsample_conv(b, x, "encoder" + name + ".downsamplers.0.conv", 0);
  }
  x = encoder.conv_out(encoder.mid_block(x), 2 * k.latent_channels);
  return k.use_quant_conv ? conv2d(b, x, "quant_conv", 2 * k.latent_channels, 1) : x;
}

ValueId decode(const AutoencoderKlConfig& k, ModelContext& context, ValueId latents) {
  GraphBuilder& b = context.builder;
  expect_autoencoder_input(b, latents, "latent_channels", k.latent_channels);
  AutoencoderPart decoder(k, context, "decoder");
  ValueId x = k.use_post_quant_conv ? conv2d(b, latents, "post_quant_conv", k.latent_channels, 1) : latents;
  x = decoder.mid_block(decoder.conv_in(x, k.block_out_channels.back()));
  const size_t levels = k.block_out_channels.size();
  for (size_t i = 0; i < levels; ++i) {
    const string name = fmt::format(".up_blocks.{}", i);
    for (int64_t j = 0; j < k.layers_per_block + 1; ++j)
      x = decoder.resnet(x, fmt::format("{}.resnets.{}", name, j), k.block_out_channels[levels - 1 - i]);
    if (i + 1 < levels) x = upsample_conv(b, x, "decoder" + name + ".upsamplers.0.conv");
  }
  return decoder.conv_out(x, k.out_channels);
}

nlohmann::ordered_json to_json(const AutoencoderKlConfig& k) {
  nlohmann::ordered_json size = k.sample_size;
  if (k.sample_size.size() == 1) size = k.sample_size[0];
  return {{"_class_name", "AutoencoderKL"},
          {"_diffusers_version", "0.42.1"},
          {"act_fn", k.act_fn},
          {"block_out_channels", k.block_out_channels},
          {"down_block_types", k.down_block_types},
          {"in_channels", k.in_channels},
          {"latent_channels", k.latent_channels},
          {"layers_per_block", k.layers_per_block},
          {"mid_block_add_attention", k.mid_block_add_attention},
          {"norm_num_groups", k.norm_num_groups},
          {"out_channels", k.out_channels},
          {"sample_size", size},
          {"scaling_factor", k.scaling_factor},
          {"up_block_types", k.up_block_types},
          {"use_post_quant_conv", k.use_post_quant_conv},
          {"use_quant_conv", k.use_quant_conv}};
}

}  // namespace lockstep
