// SPDX-License-Identifier: Apache-2.0
#include "models/unet2d.h"

#include <nlohmann/json.hpp>

#include "kernels/concat/concat.h"
#include "models/config_check.h"
#include "models/unet_blocks.h"

namespace lockstep {
namespace {

using std::string;

string at(const string& prefix, const char* list, size_t i) {
  return fmt::format("{}.{}.{}", prefix, list, i);
}

// One graph being built. Comments give shapes: C channels, E the width of the time embedding.
class Builder {
 public:
  Builder(const UNet2DConfig& config, ModelContext& context, const DenoiserInputs& inputs)
      : k_(config), c_(context), in_(inputs), b_(context.builder) {}

  ValueId build() {
    ValueId image = in_.sample;
    const auto& channels = k_.block_out_channels;
    const size_t levels = channels.size();
    expect_size(image);
    if (k_.center_input_sample)
      image = b_.elementwise(Elt::add_imm, {b_.elementwise(Elt::scale, {image}, 2)}, -1);
    ValueId x = conv2d(b_, image, "conv_in", channels[0]);
    embed();

    std::vector<ValueId> skips = {x};
    for (size_t i = 0; i < levels; ++i) {
      const string name = at("", "down_blocks", i).substr(1);
      const bool attention_block = k_.down_block_types[i] == "AttnDownBlock2D";
      for (size_t j = 0; j < static_cast<size_t>(k_.layers_per_block); ++j) {
        x = resnet(x, at(name, "resnets", j), channels[i]);
        if (attention_block) x = attention(x, at(name, "attentions", j), k_.norm_num_groups, 1);
        skips.push_back(x);
      }
      if (i + 1 == levels) continue;
      const string down = name + ".downsamplers.0";
      x = attention_block && k_.downsample_type == "resnet"
              ? resnet(x, down, channels[i], 1, Resample::down)
              : downsample_conv(b_, x, down + ".conv", k_.downsample_padding);
      skips.push_back(x);
    }

    if (k_.mid_block_type) {
      const double scale = k_.mid_block_scale_factor;
      const int64_t c = channels.back();
      x = resnet(x, "mid_block.resnets.0", c, scale);
      // With scale_shift diffusers' mid block norms only if attn_norm_num_groups says so.
      const bool scale_shift = k_.resnet_time_scale_shift == "scale_shift";
      const int64_t groups = k_.attn_norm_num_groups.value_or(scale_shift ? 0 : k_.norm_num_groups);
      if (k_.add_attention) x = attention(x, "mid_block.attentions.0", groups, scale);
      x = resnet(x, "mid_block.resnets.1", c, scale);
    }

    for (size_t i = 0; i < levels; ++i) {
      const string name = at("", "up_blocks", i).substr(1);
      const int64_t c = channels[levels - 1 - i];
      const bool attention_block = k_.up_block_types[i] == "AttnUpBlock2D";
      for (size_t j = 0; j < static_cast<size_t>(k_.layers_per_block) + 1; ++j) {
        b_.set_scope(at(name, "resnets", j));
        b_.set_block(at(name, "resnets", j));  // put together again where the resnet is recomputed
        x = b_.add1("concat", NoParams{}, {x, skips.back()});
        skips.pop_back();
        x = resnet(x, at(name, "resnets", j), c);
        if (attention_block) x = attention(x, at(name, "attentions", j), k_.norm_num_groups, 1);
      }
      if (i + 1 == levels) continue;
      const string up = name + ".upsamplers.0";
      x = attention_block && k_.upsample_type == "resnet" ? resnet(x, up, c, 1, Resample::up)
                                                          : upsample_conv(b_, x, up + ".conv");
    }

    x = activate(b_, group_norm(b_, x, "conv_norm_out", k_.norm_num_groups, k_.norm_eps), Elt::silu);
    return conv2d(b_, x, "conv_out", k_.out_channels);
  }

 private:
  const Shape& shape(ValueId x) const { return b_.spec(x).shape; }

  void expect_size(ValueId image) const {
    const Shape& s = shape(image);
    if (s[1] != k_.in_channels)
      throw Error(
          Exit::config, "E_SHAPE",
          fmt::format("the UNet takes {} channels (in_channels), the images have {}", k_.in_channels, s[1]));
    if (k_.sample_size.empty()) return;
    const int64_t h = k_.sample_size.front(), w = k_.sample_size.back();
    if (h != s[2] || w != s[3])
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("the UNet's sample_size is {}x{}, the images are {}x{}", h, w, s[2], s[3]));
  }

  // Sets embedding_: act(time embedding [+ class embedding]) [N, E], which every resnet projects.
  void embed() {
    const int64_t width = k_.time_embedding_dim.value_or(4 * k_.block_out_channels[0]);
    const TimeEmbedding time{k_.block_out_channels[0], width, k_.flip_sin_to_cos, k_.freq_shift};
    b_.set_scope("time_proj");
    ValueId sum = time_embedding(b_, time, in_.timesteps, "time_embedding");
    if (k_.conditional()) {
      b_.set_scope("class_embedding");
      ValueId classes;
      if (k_.class_embed_type) {
        classes = time_embedding(b_, time, in_.labels, "class_embedding");
      } else {
        if (*k_.num_class_embeds < in_.label_values)
          throw Error(Exit::config, "E_SHAPE",
                      fmt::format("the UNet embeds {} classes (num_class_embeds), labels have {} values",
                                  *k_.num_class_embeds, in_.label_values))
              .hint("one for each class of the data, and one more with objective.label_dropout");
        const ValueId table =
            b_.parameter("class_embedding.weight", {*k_.num_class_embeds, width}, normal_init(1));
        classes = b_.add1("embedding", NoParams{}, {table, in_.labels});
      }
      b_.set_scope("class_embedding");
      sum = b_.elementwise(Elt::add, {sum, classes});
    }
    embedding_ = activate(b_, sum, activation_of(k_.act_fn));
  }

  ValueId resnet(ValueId x, const string& name, int64_t out, double scale = 1,
                 Resample resample = Resample::none) {
    const ResnetBlock block{k_.norm_num_groups,
                            k_.norm_eps,
                            activation_of(k_.act_fn),
                            k_.dropout,
                            k_.resnet_time_scale_shift == "scale_shift",
                            scale};
    return resnet_block(c_, block, x, embedding_, name, out, resample);
  }

  // self_attention2d / scale; groups 0: no norm.
  ValueId attention(ValueId x, const string& name, int64_t groups, double scale) {
    b_.set_block(name);
    const int64_t c = shape(x)[1], width = k_.attention_head_dim.value_or(c);
    if (c % width)
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("{}: attention_head_dim {} does not divide {} channels", name, width, c));
    ValueId y = self_attention2d(b_, x, name, c / width, groups, k_.norm_eps);
    if (scale != 1) y = b_.elementwise(Elt::scale, {y}, static_cast<float>(1 / scale));
    b_.set_block("");
    return y;
  }

  const UNet2DConfig& k_;
  ModelContext& c_;
  const DenoiserInputs& in_;
  GraphBuilder& b_;
  ValueId embedding_ = kNoValue;
};

}  // namespace

void check(const UNet2DConfig& k) {
  const ConfigCheck check("E_UNET");
  const size_t levels = k.block_out_channels.size();
  check.expect_levels("block_out_channels", levels);
  for (const auto& [key, list] :
       {std::pair{"down_block_types", &k.down_block_types}, {"up_block_types", &k.up_block_types}})
    check.expect_size(key, list->size(), levels);
  for (const auto& t : k.down_block_types)
    check.expect_choice("down_block_types", t, {"DownBlock2D", "AttnDownBlock2D"});
  for (const auto& t : k.up_block_types)
    check.expect_choice("up_block_types", t, {"UpBlock2D", "AttnUpBlock2D"});
  if (k.mid_block_type) check.expect_choice("mid_block_type", *k.mid_block_type, {"UNetMidBlock2D"});
  check.expect_choice("time_embedding_type", k.time_embedding_type, {"positional"});
  check.expect_choice("downsample_type", k.downsample_type, {"conv", "resnet"});
  check.expect_choice("upsample_type", k.upsample_type, {"conv", "resnet"});
  check.expect_choice("act_fn", k.act_fn, {"silu", "swish", "relu", "gelu"});
  check.expect_choice("resnet_time_scale_shift", k.resnet_time_scale_shift, {"default", "scale_shift"});
  if (k.class_embed_type) {
    if (*k.class_embed_type == "identity")
      check.refuse("class_embed_type", "identity takes vectors for classes, and data sets have numbers");
    check.expect_choice("class_embed_type", *k.class_embed_type, {"timestep"});
    if (k.num_class_embeds) check.refuse("num_class_embeds", "not together with class_embed_type");
  }
  if (k.downsample_padding != 0 && k.downsample_padding != 1)
    check.refuse("downsample_padding", fmt::format("{} is not supported; 0 or 1", k.downsample_padding));
  if (k.sample_size.size() > 2) check.refuse("sample_size", "one number, or [height, width]");
  if (k.out_channels != k.in_channels)
    check.refuse("out_channels", fmt::format("{} for {} in_channels: learned variances are not supported",
                                             k.out_channels, k.in_channels));
  for (int64_t c : k.block_out_channels)
    check.expect_divides("norm_num_groups", k.norm_num_groups, "groups", c);
}

Denoiser make_unet2d(const UNet2DConfig& config) {
  check(config);
  return [config](ModelContext& context, const DenoiserInputs& inputs) {
    return Builder(config, context, inputs).build();
  };
}

nlohmann::ordered_json to_json(const UNet2DConfig& k) {
  auto optional = [](const auto& v) {
    return v ? nlohmann::ordered_json(*v) : nlohmann::ordered_json(nullptr);
  };
  nlohmann::ordered_json size = nullptr;
  if (k.sample_size.size() == 1 || (k.sample_size.size() == 2 && k.sample_size[0] == k.sample_size[1]))
    size = k.sample_size[0];
  else if (!k.sample_size.empty())
    size = k.sample_size;
  return {{"_class_name", "UNet2DModel"},
          {"_diffusers_version", "0.42.1"},
          {"act_fn", k.act_fn},
          {"add_attention", k.add_attention},
          {"attention_head_dim", optional(k.attention_head_dim)},
          {"attn_norm_num_groups", optional(k.attn_norm_num_groups)},
          {"block_out_channels", k.block_out_channels},
          {"center_input_sample", k.center_input_sample},
          {"class_embed_type", optional(k.class_embed_type)},
          {"down_block_types", k.down_block_types},
          {"downsample_padding", k.downsample_padding},
          {"downsample_type", k.downsample_type},
          {"dropout", k.dropout},
          {"flip_sin_to_cos", k.flip_sin_to_cos},
          {"freq_shift", k.freq_shift},
          {"in_channels", k.in_channels},
          {"layers_per_block", k.layers_per_block},
          {"mid_block_scale_factor", k.mid_block_scale_factor},
          {"mid_block_type", optional(k.mid_block_type)},
          {"norm_eps", k.norm_eps},
          {"norm_num_groups", k.norm_num_groups},
          {"num_class_embeds", optional(k.num_class_embeds)},
          {"num_train_timesteps", nullptr},
          {"out_channels", k.out_channels},
          {"resnet_time_scale_shift", k.resnet_time_scale_shift},
          {"sample_size", size},
          {"time_embedding_dim", optional(k.time_embedding_dim)},
          {"time_embedding_type", k.time_embedding_type},
          {"up_block_types", k.up_block_types},
          {"upsample_type", k.upsample_type}};
}

}  // namespace lockstep
