// SPDX-License-Identifier: Apache-2.0
// What a model is before it becomes a graph: a name, or a list of layers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lockstep {

struct LayerSpec;

// {height, width}; one number in the job file gives both.
struct Pair {
  int64_t h = 1, w = 1;
};

namespace layer {
struct Conv2d {
  int64_t out_channels = 0;
  int64_t in_channels = 0;  // 0: taken from the input; else checked against it
  Pair kernel{1, 1}, stride{1, 1}, padding{0, 0}, dilation{1, 1};
  int64_t groups = 1;
  bool bias = true;
  bool kaiming_normal = false;  // the weight's init: kaiming_normal_(mode="fan_out", nonlinearity="relu")
};
struct Linear {
  int64_t out_features = 0;  // 0: the data's classes
  int64_t in_features = 0;   // 0: taken from the input; else checked
  bool bias = true;
};
struct MaxPool2d {
  Pair kernel{1, 1}, stride{0, 0}, padding{0, 0}, dilation{1, 1};  // stride 0: the kernel
  bool ceil_mode = false;
};
struct AvgPool2d {
  Pair kernel{1, 1}, stride{0, 0}, padding{0, 0};
  bool ceil_mode = false, count_include_pad = true;
};
struct AdaptiveAvgPool2d {
  Pair output{1, 1};
};
struct Activation {
  std::string kind;  // relu, silu, gelu, tanh, sigmoid
};
struct Dropout {
  double p = 0.5;
  bool channelwise = false;  // dropout2d
};
struct BatchNorm2d {
  double eps = 1e-5, momentum = 0.1;
};
struct GroupNorm {
  int64_t groups = 0;
  double eps = 1e-5;
};
// Attention between all pixels, as diffusers' Attention in UNet2DModel: x + to_out(attention(group_norm(x))).
struct SelfAttention2d {
  int64_t heads = 1;    // of channels / heads each
  int64_t groups = 32;  // of its group norm
  double eps = 1e-5;
};
struct Flatten {};
struct LogSoftmax {};
struct Residual {
  std::vector<LayerSpec> layers, shortcut;  // y = layers(x) + shortcut(x); no shortcut: + x
  // Between the block's own name and that of a layer within it.
  std::string layers_prefix = ".layers.", shortcut_prefix = ".shortcut.";
};
}  // namespace layer

struct LayerSpec {
  std::variant<layer::Conv2d, layer::Linear, layer::MaxPool2d, layer::AvgPool2d, layer::AdaptiveAvgPool2d,
               layer::Activation, layer::Dropout, layer::BatchNorm2d, layer::GroupNorm,
               layer::SelfAttention2d, layer::Flatten, layer::LogSoftmax, layer::Residual>
      kind;
  std::string type;   // the job file's word: "conv2d"
  std::string name;   // "" : its index in the list, as nn.Sequential names it
  std::string where;  // file:line:column, for messages
};
inline LayerSpec named(std::string type, decltype(LayerSpec::kind) kind, std::string name = "") {
  return {std::move(kind), std::move(type), std::move(name), ""};
}

// unet2d: diffusers' UNet2DModel (models/unet2d.h).
// Under diffusers' own names, with its defaults. Left out there and here: what needs blocks of other kinds
// (skip and FIR blocks, cross attention), Fourier and learned time embeddings, class embeddings that are
// handed in as vectors.
struct UNet2DConfig {
  std::vector<int64_t> sample_size;  // [height, width], or one number for both; empty: the data's
  int64_t in_channels = 3, out_channels = 3;
  bool center_input_sample = false;  // the input is 2x - 1
  std::string time_embedding_type = "positional";
  std::optional<int64_t> time_embedding_dim;  // none: 4 * block_out_channels[0]
  double freq_shift = 0;
  bool flip_sin_to_cos = true;
  std::vector<std::string> down_block_types = {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
                                               "AttnDownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2D";
  std::vector<std::string> up_block_types = {"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"};
  std::vector<int64_t> block_out_channels = {224, 448, 672, 896};
  int64_t layers_per_block = 2;
  double mid_block_scale_factor = 1;
  int64_t downsample_padding = 1;  // 0: one row below and one column to the right
  std::string downsample_type = "conv", upsample_type = "conv";  // or resnet; of the attention blocks only
  double dropout = 0;
  std::string act_fn = "silu";  // or swish (the same), relu, gelu
  // Width of a head; none: one head of all channels. (diffusers' default is 8, its DDPM weights have none.)
  std::optional<int64_t> attention_head_dim = 8;
  int64_t norm_num_groups = 32;
  std::optional<int64_t> attn_norm_num_groups;  // of the mid block's attention; none: norm_num_groups
  double norm_eps = 1e-5;
  std::string resnet_time_scale_shift = "default";  // or scale_shift
  bool add_attention = true;                        // in the mid block
  std::optional<std::string> class_embed_type;      // timestep; none: a table of num_class_embeds
  std::optional<int64_t> num_class_embeds;

  bool conditional() const { return class_embed_type || num_class_embeds; }
};

// unet2d_condition: diffusers' UNet2DConditionModel (models/unet2d_condition.h).
// Under diffusers' own names, with its defaults. Lists of numbers have one for each level, from the full size
// down, or one for all. Left out there and here: classes, additional embeddings (SDXL), time conditions
// (LCM), other kinds of blocks and attention.
struct UNet2DConditionConfig {
  std::vector<int64_t> sample_size;  // [height, width], or one number for both: a default, inputs may differ
  int64_t in_channels = 4, out_channels = 4;
  bool center_input_sample = false;  // the input is 2x - 1
  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  std::vector<std::string> down_block_types = {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                               "CrossAttnDownBlock2D", "DownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2DCrossAttn";  // none: no mid block
  std::vector<std::string> up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
                                             "CrossAttnUpBlock2D"};
  std::vector<int64_t> block_out_channels = {320, 640, 1280, 1280};
  std::vector<int64_t> layers_per_block = {2};
  int64_t downsample_padding = 1;  // 0: one row below and one column to the right
  double mid_block_scale_factor = 1;
  double dropout = 0;           // of the resnets
  std::string act_fn = "silu";  // or swish (the same), relu, gelu
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  int64_t cross_attention_dim = 1280;  // width of the text's tokens
  std::vector<int64_t> transformer_layers_per_block = {1};
  std::vector<int64_t> attention_head_dim = {8};    // the number of heads, whatever its name says
  bool use_linear_projection = false;               // the shape of proj_in's and proj_out's weights
  bool upcast_attention = false;                    // scores are sums in f32 either way
  std::string resnet_time_scale_shift = "default";  // or scale_shift
  std::optional<int64_t> time_embedding_dim;        // none: 4 * block_out_channels[0]
  std::optional<std::string> addition_embed_type;   // text: its vector is added to the time embedding
  int64_t addition_embed_type_num_heads = 64;       // of that vector's attention
};

// clip_text: transformers' CLIPTextModel (models/clip_text.h).
// Under transformers' own names, with its defaults.
struct ClipTextConfig {
  int64_t vocab_size = 49408;
  int64_t hidden_size = 512;
  int64_t intermediate_size = 2048;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 8;
  int64_t max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";  // or gelu, the exact one
  double layer_norm_eps = 1e-5;
  double initializer_factor = 1;
};

// autoencoder_kl: diffusers' AutoencoderKL (models/autoencoder_kl.h), under its own names, with its defaults.
struct AutoencoderKlConfig {
  int64_t in_channels = 3, out_channels = 3;
  std::vector<std::string> down_block_types = {"DownEncoderBlock2D"};
  std::vector<std::string> up_block_types = {"UpDecoderBlock2D"};
  std::vector<int64_t> block_out_channels = {64};
  int64_t layers_per_block = 1;  // resnets of an encoder's block; a decoder's has one more
  std::string act_fn = "silu";   // or swish (the same), relu, gelu
  int64_t latent_channels = 4;
  int64_t norm_num_groups = 32;
  std::vector<int64_t> sample_size = {32};  // of images, one number or [height, width]: inputs may differ
  double scaling_factor = 0.18215;          // latents times this have a deviation of about 1
  bool mid_block_add_attention = true;
  bool use_quant_conv = true, use_post_quant_conv = true;  // 1x1, behind the encoder and before the decoder

  // So many pixels of the image, each way, are one of the latents.
  int64_t scale() const { return int64_t{1} << (block_out_channels.size() - 1); }
};

// autoencoder_tiny: diffusers' AutoencoderTiny (models/autoencoder_tiny.h), under its own names, with its defaults.
struct AutoencoderTinyConfig {
  int64_t in_channels = 3, out_channels = 3;
  // Of each level, outermost first in the encoder and last in the decoder. No layer changes the channels between levels:
  // all of a list are equal.
  std::vector<int64_t> encoder_block_out_channels = {64, 64, 64, 64};
  std::vector<int64_t> decoder_block_out_channels = {64, 64, 64, 64};
  std::vector<int64_t> num_encoder_blocks = {1, 3, 3, 3};  // residual blocks of each level
  std::vector<int64_t> num_decoder_blocks = {3, 3, 3, 1};
  std::string act_fn = "relu";  // or silu, swish (the same), gelu: within blocks, which end with ReLU
  int64_t latent_channels = 4;
  double scaling_factor = 1;  // latents times this have a deviation of about 1

  // So many pixels of the image, each way, are one of the latents.
  int64_t scale() const { return int64_t{1} << (num_encoder_blocks.size() - 1); }
};

// What makes pictures of latents.
struct VaeConfig {
  std::variant<AutoencoderKlConfig, AutoencoderTinyConfig> kind;

  int64_t latent_channels() const {
    return std::visit([](const auto& c) { return c.latent_channels; }, kind);
  }
  int64_t image_channels() const {
    return std::visit([](const auto& c) { return c.out_channels; }, kind);
  }
  int64_t scale() const {
    return std::visit([](const auto& c) { return c.scale(); }, kind);
  }
};

// text_to_image: a text encoder, and a UNet that reads what it makes of a text.
struct TextToImageConfig {
  UNet2DConditionConfig unet;
  ClipTextConfig text_encoder;
  std::string tokenizer;    // folder of a CLIP tokenizer
  int64_t text_length = 0;  // tokens of a text, at most text_encoder.max_position_embeddings
  // Of a UNet that draws latents, which it makes pictures of; none: the UNet draws pixels.
  std::optional<VaeConfig> vae;
};

inline constexpr const char* kTextToImage = "text_to_image";

struct ModelSpec {
  std::string name;               // a built-in model; or empty, with layers
  std::string stem = "imagenet";  // of a resnet: imagenet, cifar
  std::vector<LayerSpec> layers;
  UNet2DConfig unet;  // of the model unet2d
  TextToImageConfig text_to_image;
  std::string init_from;  // safetensors file, checkpoint, run or diffusers folder; empty: fresh
  std::string where;

  bool reads_text() const { return name == kTextToImage; }
  bool draws_latents() const { return reads_text() && text_to_image.vae.has_value(); }
  // The UNet's default size, of the images that it draws or of their latents.
  void draw_images_of(int64_t height, int64_t width) {
    const int64_t scale = draws_latents() ? text_to_image.vae->scale() : 1;
    // By name: GCC 12 under UBSan assigns zeros to (a ? b : c) from a list with quotients.
    auto& size = reads_text() ? text_to_image.unet.sample_size : unet.sample_size;
    size = {height / scale, width / scale};
  }
  bool draws() const { return reads_text() || name == "unet2d"; }  // a diffusion model
};

}  // namespace lockstep
