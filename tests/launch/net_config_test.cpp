// SPDX-License-Identifier: Apache-2.0
// Reading and writing a net's config.json. What the nets compute is tests/models/text_to_image_test.cpp.
#include "launch/job/net_config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class NetConfig : public ::testing::Test {
 protected:
  std::string write(const std::string& text) const {
    std::ofstream(path()) << text;
    return path();
  }
  std::string path() const { return folder_.path() + "/config.json"; }

  // {"key": value}, or more, is refused with this identifier; the message names the key and the file.
  template <class Read>
  void expect_refused(Read read, const std::string& text, const std::string& id,
                      const std::string& key) const {
    try {
      read(write(text));
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.exit(), Exit::config) << e.what();
      EXPECT_EQ(e.id(), id) << e.what();
      EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("config.json"), std::string::npos) << e.what();
    }
  }

 private:
  TestFolder folder_;
};

// As the file of Stable Diffusion 1.5 has it.
constexpr const char* kStableDiffusion15 = R"({
  "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8,
  "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
  "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
  "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
  "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
  "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]})";

TEST_F(NetConfig, UNetOfAFile) {
  const auto config = read_unet_condition_config(write(kStableDiffusion15));
  UNet2DConditionConfig expected;
  expected.sample_size = {64};
  expected.cross_attention_dim = 768;
  EXPECT_EQ(to_json(config), to_json(expected));
}

TEST_F(NetConfig, UNetsRoundTrip) {
  UNet2DConditionConfig config;
  config.sample_size = {96, 64};
  config.in_channels = 3, config.out_channels = 5;
  config.center_input_sample = true, config.flip_sin_to_cos = false, config.freq_shift = 0.5;
  config.down_block_types = {"CrossAttnDownBlock2D", "DownBlock2D"};
  config.up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D"};
  config.mid_block_type.reset();
  config.block_out_channels = {8, 16}, config.layers_per_block = {1, 3};
  config.downsample_padding = 0, config.mid_block_scale_factor = 2, config.dropout = 0.25;
  config.act_fn = "gelu", config.norm_num_groups = 4, config.norm_eps = 1e-3;
  config.cross_attention_dim = 12, config.transformer_layers_per_block = {2, 1};
  config.attention_head_dim = {2, 4};
  config.use_linear_projection = config.upcast_attention = true;
  config.resnet_time_scale_shift = "scale_shift", config.time_embedding_dim = 24;
  config.addition_embed_type = "text", config.addition_embed_type_num_heads = 4;
  const json written = to_json(config);
  EXPECT_EQ(json(to_json(read_unet_condition_config(write(written.dump())))), written);
  const json defaults = to_json(UNet2DConditionConfig{});
  for (const auto& [key, value] : written.items())
    if (key[0] != '_') {
      EXPECT_NE(value, defaults.at(key)) << key << " is not tested";
    }
}

// What a file of a newer version says of everything that it does not use.
TEST_F(NetConfig, UNetsOtherKeysAtTheirDefaults) {
  const auto config = read_unet_condition_config(
      write(R"({"addition_embed_type": null, "addition_embed_type_num_heads": 64, "attention_type": "default",
        "class_embed_type": null, "class_embeddings_concat": false, "conv_in_kernel": 3, "conv_out_kernel": 3,
        "cross_attention_norm": null, "dual_cross_attention": false, "encoder_hid_dim": null,
        "mid_block_only_cross_attention": null, "num_attention_heads": null, "num_class_embeds": null,
        "only_cross_attention": null, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": false,
        "time_cond_proj_dim": null, "time_embedding_type": "positional", "upcast_attention": null,
        "use_linear_projection": null})"));
  EXPECT_EQ(to_json(config), to_json(UNet2DConditionConfig{}));
}

TEST_F(NetConfig, UNetsThatCannotBeBuilt) {
  const auto refused = [&](const std::string& key, const std::string& value, const char* id = "E_UNET") {
    expect_refused(read_unet_condition_config, "{\"" + key + "\": " + value + "}", id, key);
  };
  refused("class_embed_type", "\"timestep\"");
  refused("num_class_embeds", "10");
  refused("addition_embed_type", "\"text_time\"", "E_JOB_CHOICE");
  refused("addition_embed_type", "\"text\", \"addition_embed_type_num_heads\": 7");
  refused("time_cond_proj_dim", "256");
  refused("encoder_hid_dim", "1024");
  refused("only_cross_attention", "true");
  refused("only_cross_attention", "[true, true, true, false]");
  refused("dual_cross_attention", "true");
  refused("resnet_out_scale_factor", "2");
  refused("conv_in_kernel", "1");
  refused("attention_type", "\"gated\"");
  refused("num_attention_heads", "8");
  refused("time_embedding_type", "\"fourier\"");
  refused("attention_head_dim", "7");
  refused("attention_head_dim", "[8, 8]");
  refused("layers_per_block", "[1, 2, 3]");
  refused("norm_num_groups", "48");
  refused("block_out_channels", "[320, 640]");
  std::string levels = "8";
  for (int i = 0; i < 17; ++i) levels += ", 8";
  refused("block_out_channels", "[" + levels + "]");
  refused("_class_name", "\"UNet2DModel\"");
  refused("down_block_types", "[\"SimpleCrossAttnDownBlock2D\"]", "E_JOB_CHOICE");
  refused("mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", "E_JOB_CHOICE");
  refused("downsample_padding", "2", "E_JOB_RANGE");
  refused("transformer_layers_per_block", "[[1, 1], 1]", "E_JOB_TYPE");
  refused("cross_attention_dims", "768", "E_JOB_UNKNOWN_KEY");
}

TEST_F(NetConfig, AutoencodersRoundTrip) {
  AutoencoderKlConfig config;
  config.in_channels = 1, config.out_channels = 2;
  config.down_block_types.assign(3, "DownEncoderBlock2D");
  config.up_block_types.assign(3, "UpDecoderBlock2D");
  config.block_out_channels = {8, 8, 16}, config.layers_per_block = 2;
  config.act_fn = "relu", config.latent_channels = 3, config.norm_num_groups = 4;
  config.sample_size = {512, 256}, config.scaling_factor = 0.5, config.mid_block_add_attention = false;
  config.use_quant_conv = config.use_post_quant_conv = false;
  EXPECT_EQ(config.scale(), 4);
  const json written = to_json(config);
  EXPECT_EQ(json(to_json(read_autoencoder_config(write(written.dump())))), written);
  const json defaults = to_json(AutoencoderKlConfig{});
  for (const auto& [key, value] : written.items())
    if (key[0] != '_') {
      EXPECT_NE(value, defaults.at(key)) << key << " is not tested";
    }
  EXPECT_EQ(read_autoencoder_config(write("{\"force_upcast\": true, \"shift_factor\": null}")).scaling_factor,
            0.18215);
}

TEST_F(NetConfig, AutoencodersThatCannotBeBuilt) {
  const auto refused = [&](const std::string& key, const std::string& value, const char* id = "E_VAE") {
    expect_refused(read_autoencoder_config, "{\"" + key + "\": " + value + "}", id, key);
  };
  refused("shift_factor", "0.1");
  refused("latents_mean", "[0, 0, 0, 0]");
  refused("norm_num_groups", "48");
  refused("block_out_channels", "[64, 64]");
  refused("down_block_types", "[\"AttnDownEncoderBlock2D\"]", "E_JOB_CHOICE");
  refused("scaling_factor", "0", "E_JOB_RANGE");
}

// What diffusers 0.30 writes of TAESD.
TEST_F(NetConfig, TinyAutoencoderOfAFile) {
  const auto config = read_autoencoder_tiny_config(write(R"({
    "_class_name": "AutoencoderTiny", "_diffusers_version": "0.30.0", "act_fn": "relu",
    "block_out_channels": [64, 64, 64, 64], "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64], "force_upcast": false, "in_channels": 3, "latent_channels": 4,
    "latent_magnitude": 3, "latent_shift": 0.5, "num_decoder_blocks": [3, 3, 3, 1], "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3, "scaling_factor": 1.0, "shift_factor": 0.0, "upsample_fn": "nearest",
    "upsampling_scaling_factor": 2})"));
  EXPECT_EQ(to_json(config), to_json(AutoencoderTinyConfig{}));
  EXPECT_EQ(config.scale(), 8);
}

TEST_F(NetConfig, TinyAutoencodersRoundTrip) {
  AutoencoderTinyConfig config;
  config.in_channels = 1, config.out_channels = 2, config.latent_channels = 3;
  config.encoder_block_out_channels = {8, 8}, config.decoder_block_out_channels = {16, 16};
  config.num_encoder_blocks = {2, 1}, config.num_decoder_blocks = {0, 4};
  config.act_fn = "gelu", config.scaling_factor = 0.5;
  const json written = to_json(config);
  EXPECT_EQ(json(to_json(read_autoencoder_tiny_config(write(written.dump())))), written);
  const json defaults = to_json(AutoencoderTinyConfig{});
  for (const auto& [key, value] : written.items())
    if (key[0] != '_') {
      EXPECT_NE(value, defaults.at(key)) << key << " is not tested";
    }
}

TEST_F(NetConfig, TinyAutoencodersThatCannotBeBuilt) {
  const auto refused = [&](const std::string& key, const std::string& value, const char* id = "E_VAE") {
    expect_refused(read_autoencoder_tiny_config, "{\"" + key + "\": " + value + "}", id, key);
  };
  refused("_class_name", "\"AutoencoderKL\"");
  refused("shift_factor", "0.1");
  refused("upsample_fn", "\"bilinear\"");
  refused("upsampling_scaling_factor", "3");
  refused("num_encoder_blocks", "[]", "E_JOB_TYPE");
  refused("num_decoder_blocks", "[3, 3, 1]");
  refused("encoder_block_out_channels", "[64, 64]");
  refused("encoder_block_out_channels", "[64, 64, 64, 32]");
  refused("decoder_block_out_channels", "[32, 64, 64, 64]");
  refused("act_fn", "\"mish\"", "E_JOB_CHOICE");
  refused("scaling_factor", "0", "E_JOB_RANGE");
}

TEST_F(NetConfig, TextEncodersRoundTrip) {
  ClipTextConfig config;
  config.vocab_size = 1000, config.hidden_size = 48, config.intermediate_size = 37;
  config.num_hidden_layers = 5, config.num_attention_heads = 4, config.max_position_embeddings = 20;
  config.hidden_act = "gelu", config.layer_norm_eps = 1e-4, config.initializer_factor = 2;
  const json written = to_json(config);
  EXPECT_EQ(json(to_json(read_clip_text_config(write(written.dump())))), written);
}

// transformers gives every model keys of its own, and CLIP's text encoder is a part of CLIP.
TEST_F(NetConfig, TextEncodersOfFiles) {
  EXPECT_EQ(read_clip_text_config(write(R"({"model_type": "clip_text_model", "torch_dtype": "float16",
      "bos_token_id": 0, "eos_token_id": 2, "dropout": 0.0, "attention_dropout": 0.0, "hidden_size": 768,
      "num_attention_heads": 12, "id2label": {"0": "LABEL_0"}})"))
                .hidden_size,
            768);
  EXPECT_EQ(read_clip_text_config(write(R"({"model_type": "clip", "hidden_size": 7, "vision_config": {"a": 1},
      "text_config": {"model_type": "clip_text_model", "hidden_size": 768, "num_attention_heads": 12}})"))
                .hidden_size,
            768);
}

TEST_F(NetConfig, TextEncodersThatCannotBeBuilt) {
  const auto refused = [&](const std::string& key, const std::string& value,
                           const char* id = "E_TEXT_ENCODER") {
    expect_refused(read_clip_text_config, "{\"" + key + "\": " + value + "}", id, key);
  };
  refused("model_type", "\"t5\"");
  refused("attention_dropout", "0.1");
  refused("use_attention_mask", "true");
  refused("num_attention_heads", "7");
  refused("hidden_act", "\"relu\"", "E_JOB_CHOICE");
  refused("hidden_size", "0", "E_JOB_RANGE");
  expect_refused(read_clip_text_config, R"({"model_type": "clip"})", "E_TEXT_ENCODER", "text_config");
}

TEST_F(NetConfig, FilesThatAreNone) {
  const auto error_of = [&](const auto& read) {
    try {
      read(path());
    } catch (const Error& e) {
      return std::pair{e.exit(), e.id()};
    }
    return std::pair{Exit::ok, std::string()};
  };
  const auto expect_all = [&](Exit exit, const std::string& id) {
    const std::pair expected{exit, id};
    EXPECT_EQ(error_of(read_unet_config), expected);
    EXPECT_EQ(error_of(read_unet_condition_config), expected);
    EXPECT_EQ(error_of(read_autoencoder_config), expected);
    EXPECT_EQ(error_of(read_autoencoder_tiny_config), expected);
    EXPECT_EQ(error_of(read_clip_text_config), expected);
  };
  expect_all(Exit::no_input, "E_CONFIG_NONE");
  for (const char* text : {"", "{", "[1]", "\"text\"", "{\"a\": 1} {}"}) {
    write(text);
    expect_all(Exit::data, "E_CONFIG_JSON");
  }
}

}  // namespace
}  // namespace lockstep::testing
