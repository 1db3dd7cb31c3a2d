// SPDX-License-Identifier: Apache-2.0
#include "models/unet2d_condition.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/core/kernel.h"
#include "kernels/pool2d/pool2d.h"
#include "models/config_check.h"
#include "models/unet_blocks.h"

namespace lockstep {
namespace {

using std::string;

constexpr const char* kCrossDown = "CrossAttnDownBlock2D";
constexpr const char* kCrossUp = "CrossAttnUpBlock2D";
constexpr double kTransformerNormEps = 1e-6;  // of Transformer2DModel's group norm, whatever norm_eps says

// Of a list with a number for each level, or one for all.
int64_t of_level(const std::vector<int64_t>& list, size_t level) {
  return list.size() == 1 ? list[0] : list[level];
}

// One graph being built. The comments' C are channels, T the text's tokens.
class ConditionBuilder {
 public:
  ConditionBuilder(const UNet2DConditionConfig& config, ModelContext& context, const DenoiserInputs& in)
      : k_(config), c_(context), b_(context.builder), text_(in.text) {}

  ValueId build(const DenoiserInputs& in) {
    check_inputs(in);
    const auto& channels = k_.block_out_channels;
    const size_t levels = channels.size();
    ValueId x = in.sample;
    if (k_.center_input_sample) x = b_.elementwise(Elt::add_imm, {b_.elementwise(Elt::scale, {x}, 2)}, -1);
    x = conv2d(b_, x, "conv_in", channels[0]);
    b_.set_scope("time_proj");
    const Elt act = activation_of(k_.act_fn);
    const TimeEmbedding time{channels[0], k_.time_embedding_dim.value_or(4 * channels[0]), k_.flip_sin_to_cos,
                             k_.freq_shift, act};
    ValueId embedding = time_embedding(b_, time, in.timesteps, "time_embedding");
    if (k_.addition_embed_type) {
      const ValueId text = text_time_embedding(time.width);
      b_.set_scope("add_embedding");
      embedding = b_.elementwise(Elt::add, {embedding, text});
    }
    embedding_ = activate(b_, embedding, act);

    std::vector<ValueId> skips = {x};
    for (size_t i = 0; i < levels; ++i) {
      const string name = fmt::format("down_blocks.{}", i);
      for (int64_t j = 0; j < of_level(k_.layers_per_block, i); ++j) {
        x = resnet(x, fmt::format("{}.resnets.{}", name, j), channels[i]);
        if (k_.down_block_types[i] == kCrossDown)
          x = transformer(x, fmt::format("{}.attentions.{}", name, j), i);
        skips.push_back(x);
      }
      if (i + 1 == levels) continue;
      x = downsample_conv(b_, x, name + ".downsamplers.0.conv", k_.downsample_padding);
      skips.push_back(x);
    }

    if (k_.mid_block_type) {
      const int64_t c = channels.back();
      x = resnet(x, "mid_block.resnets.0", c, k_.mid_block_scale_factor);
      x = transformer(x, "mid_block.attentions.0", levels - 1);
      x = resnet(x, "mid_block.resnets.1", c, k_.mid_block_scale_factor);
    }

    for (size_t i = 0; i < levels; ++i) {
      const size_t level = levels - 1 - i;
      const string name = fmt::format("up_blocks.{}", i);
      for (int64_t j = 0; j < of_level(k_.layers_per_block, level) + 1; ++j) {
        const string part = fmt::format("{}.resnets.{}", name, j);
        b_.set_scope(part);
        b_.set_block(part);  // put together again where the resnet is recomputed
        x = b_.add1("concat", NoParams{}, {x, skips.back()});
        skips.pop_back();
        x = resnet(x, part, channels[level]);
        if (k_.up_block_types[i] == kCrossUp)
          x = transformer(x, fmt::format("{}.attentions.{}", name, j), level);
      }
      if (i + 1 == levels) continue;
      // To the size of what it meets next: twice its own, or one less where that was odd.
      const Shape& next = b_.spec(skips.back()).shape;
      x = upsample_conv(b_, x, name + ".upsamplers.0.conv", next[2], next[3]);
    }

    x = group_norm(b_, x, "conv_norm_out", k_.norm_num_groups, k_.norm_eps);
    return conv2d(b_, activate(b_, x, act), "conv_out", k_.out_channels);
  }

 private:
  void check_inputs(const DenoiserInputs& in) const {
    LOCKSTEP_ASSERT(in.timesteps != kNoValue && in.text != kNoValue, "it takes timesteps and text");
    const Shape &sample = b_.spec(in.sample).shape, &text = b_.spec(in.text).shape;
    if (sample[1] != k_.in_channels)
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("the UNet takes {} channels (in_channels), the samples have {}", k_.in_channels,
                              sample[1]));
    if (text.rank() != 3 || text[2] != k_.cross_attention_dim)
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("the UNet takes text of width {} (cross_attention_dim), the text is {}",
                              k_.cross_attention_dim, text.text()));
  }

  // TextTimeEmbedding: the whole text as one vector, which a mean of its tokens draws from them by attention.
  // [N, T, E] -> [N, width].
  ValueId text_time_embedding(int64_t width) {
    const string name = "add_embedding", pool = name + ".pool";
    const Shape& shape = b_.spec(text_).shape;
    const int64_t length = shape[1], e = shape[2];
    const ValueId tokens = layer_norm(b_, text_, name + ".norm1", 1e-5);
    b_.set_scope(pool);
    Pool2dParams mean;
    mean.adaptive = true;
    const ValueId table = b_.parameter(pool + ".positional_embedding", {1, e},
                                       normal_init(1 / std::sqrt(static_cast<double>(e))));
    const ValueId query =
        b_.add1("position_embedding", NoParams{},
                {b_.tokens(b_.add1("avg_pool2d", mean, {b_.image(tokens, length, 1)})), table});
    const ValueId all = b_.add1("concat", NoParams{}, {query, tokens});
    const ValueId k = linear(b_, all, pool + ".k_proj", e);
    const ValueId q = linear(b_, query, pool + ".q_proj", e);
    const ValueId v = linear(b_, all, pool + ".v_proj", e);
    b_.set_scope(pool);
    const ValueId seen = attention(b_, q, k, v, k_.addition_embed_type_num_heads);
    const ValueId vector = b_.view(seen, {b_.spec(seen).shape[0], e});
    return layer_norm(b_, linear(b_, vector, name + ".proj", width), name + ".norm2", 1e-5);
  }

  ValueId resnet(ValueId x, const string& name, int64_t out, double divisor = 1) {
    const ResnetBlock block{k_.norm_num_groups,
                            k_.norm_eps,
                            activation_of(k_.act_fn),
                            k_.dropout,
                            k_.resnet_time_scale_shift == "scale_shift",
                            divisor};
    return resnet_block(c_, block, x, embedding_, name, out);
  }

  // Transformer2DModel: x + proj_out(blocks(proj_in(norm(x)))), its tokens the pixels. [N, C, H, W] -> the
  // same.
  ValueId transformer(ValueId x, const string& name, size_t level) {
    b_.set_block(name);
    const Shape shape = b_.spec(x).shape;
    const ValueId normed = group_norm(b_, x, name + ".norm", k_.norm_num_groups, kTransformerNormEps);
    ValueId tokens = b_.tokens(project_pixels(b_, normed, name + ".proj_in", projection()));
    for (int64_t i = 0; i < of_level(k_.transformer_layers_per_block, level); ++i)
      tokens = block(tokens, fmt::format("{}.transformer_blocks.{}", name, i), level);
    b_.set_scope(name);
    const ValueId out =
        project_pixels(b_, b_.image(tokens, shape[2], shape[3]), name + ".proj_out", projection());
    b_.set_scope(name);
    const ValueId y = b_.elementwise(Elt::add, {out, x});
    b_.set_block("");
    return y;
  }
  Pointwise projection() const { return k_.use_linear_projection ? Pointwise::linear : Pointwise::conv2d; }

  // BasicTransformerBlock: attention between the pixels, to the text, and a gated linear unit. [N, L, C].
  ValueId block(ValueId x, const string& name, size_t level) {
    const int64_t c = b_.spec(x).shape[2], heads = of_level(k_.attention_head_dim, level);
    const auto norm = [&](const char* part) { return layer_norm(b_, x, name + part, 1e-5); };
    const auto attend = [&](ValueId from, ValueId to, const string& part) {
      const ValueId q = linear(b_, from, part + ".to_q", c, false);
      const ValueId k = linear(b_, to, part + ".to_k", c, false);
      const ValueId v = linear(b_, to, part + ".to_v", c, false);
      b_.set_scope(part);
      return linear(b_, attention(b_, q, k, v, heads), part + ".to_out.0", c);
    };
    const auto add = [&](ValueId change, const char* part) {
      b_.set_scope(name + part);
      x = b_.elementwise(Elt::add, {change, x});
    };
    const ValueId self = norm(".norm1");
    add(attend(self, self, name + ".attn1"), ".attn1");
    add(attend(norm(".norm2"), text_, name + ".attn2"), ".attn2");
    const ValueId wide = linear(b_, norm(".norm3"), name + ".ff.net.0.proj", 8 * c);
    add(linear(b_, b_.add1("geglu", NoParams{}, {wide}), name + ".ff.net.2", c), ".ff");
    return x;
  }

  const UNet2DConditionConfig& k_;
  ModelContext& c_;
  GraphBuilder& b_;
  ValueId text_;                  // [N, T, cross_attention_dim]
  ValueId embedding_ = kNoValue;  // the activated time embedding, which every resnet projects
};

}  // namespace

void check(const UNet2DConditionConfig& k) {
  const ConfigCheck check("E_UNET");
  const size_t levels = k.block_out_channels.size();
  check.expect_levels("block_out_channels", levels);
  check.expect_size("down_block_types", k.down_block_types.size(), levels);
  check.expect_size("up_block_types", k.up_block_types.size(), levels);
  for (const auto& [key, list] : {std::pair{"layers_per_block", &k.layers_per_block},
                                  {"transformer_layers_per_block", &k.transformer_layers_per_block},
                                  {"attention_head_dim", &k.attention_head_dim}})
    if (list->size() != 1) check.expect_size(key, list->size(), levels);
  for (const auto& t : k.down_block_types)
    check.expect_choice("down_block_types", t, {kCrossDown, "DownBlock2D"});
  for (const auto& t : k.up_block_types) check.expect_choice("up_block_types", t, {kCrossUp, "UpBlock2D"});
  if (k.mid_block_type) check.expect_choice("mid_block_type", *k.mid_block_type, {"UNetMidBlock2DCrossAttn"});
  check.expect_choice("act_fn", k.act_fn, {"silu", "swish", "relu", "gelu"});
  check.expect_choice("resnet_time_scale_shift", k.resnet_time_scale_shift, {"default", "scale_shift"});
  if (k.addition_embed_type) {
    check.expect_choice("addition_embed_type", *k.addition_embed_type, {"text"});
    check.expect_divides("addition_embed_type_num_heads", k.addition_embed_type_num_heads, "heads",
                         k.cross_attention_dim);
  }
  if (k.downsample_padding != 0 && k.downsample_padding != 1)
    check.refuse("downsample_padding", fmt::format("{} is not supported; 0 or 1", k.downsample_padding));
  if (k.sample_size.size() > 2) check.refuse("sample_size", "one number, or [height, width]");
  for (size_t i = 0; i < levels; ++i) {
    const int64_t c = k.block_out_channels[i], heads = of_level(k.attention_head_dim, i);
    check.expect_divides("norm_num_groups", k.norm_num_groups, "groups", c);
    const bool mid = k.mid_block_type && i + 1 == levels;
    if (mid || k.down_block_types[i] == kCrossDown || k.up_block_types[levels - 1 - i] == kCrossUp)
      check.expect_divides("attention_head_dim", heads, "heads", c);
  }
}

Denoiser make_unet2d_condition(const UNet2DConditionConfig& config) {
  check(config);
  return [config](ModelContext& context, const DenoiserInputs& in) {
    return ConditionBuilder(config, context, in).build(in);
  };
}

nlohmann::ordered_json to_json(const UNet2DConditionConfig& k) {
  const auto optional = [](const auto& v) {
    return v ? nlohmann::ordered_json(*v) : nlohmann::ordered_json(nullptr);
  };
  const auto numbers = [](const std::vector<int64_t>& list) -> nlohmann::ordered_json {
    if (list.empty()) return nullptr;
    if (list.size() == 1) return list[0];
    return list;
  };
  return {{"_class_name", "UNet2DConditionModel"},
          {"_diffusers_version", "0.42.1"},
          {"act_fn", k.act_fn},
          {"addition_embed_type", optional(k.addition_embed_type)},
          {"addition_embed_type_num_heads", k.addition_embed_type_num_heads},
          {"attention_head_dim", numbers(k.attention_head_dim)},
          {"block_out_channels", k.block_out_channels},
          {"center_input_sample", k.center_input_sample},
          {"cross_attention_dim", k.cross_attention_dim},
          {"down_block_types", k.down_block_types},
          {"downsample_padding", k.downsample_padding},
          {"dropout", k.dropout},
          {"flip_sin_to_cos", k.flip_sin_to_cos},
          {"freq_shift", k.freq_shift},
          {"in_channels", k.in_channels},
          {"layers_per_block", numbers(k.layers_per_block)},
          {"mid_block_scale_factor", k.mid_block_scale_factor},
          {"mid_block_type", optional(k.mid_block_type)},
          {"norm_eps", k.norm_eps},
          {"norm_num_groups", k.norm_num_groups},
          {"out_channels", k.out_channels},
          {"resnet_time_scale_shift", k.resnet_time_scale_shift},
          {"sample_size", numbers(k.sample_size)},
          {"time_embedding_dim", optional(k.time_embedding_dim)},
          {"transformer_layers_per_block", numbers(k.transformer_layers_per_block)},
          {"up_block_types", k.up_block_types},
          {"upcast_attention", k.upcast_attention},
          {"use_linear_projection", k.use_linear_projection}};
}

}  // namespace lockstep
