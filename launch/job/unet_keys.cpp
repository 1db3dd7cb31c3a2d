// SPDX-License-Identifier: Apache-2.0
// `model.config` of the model unet2d, and of a diffusers folder's unet/config.json: diffusers' own names.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launch/job/keys.h"
#include "launch/job/reader.h"
#include "launch/job/unet_config.h"
#include "models/unet2d.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/path.h"

namespace lockstep::job {

#define UNET_FIELD(member) [](void* object) -> Slot { return &static_cast<UNet2DConfig*>(object)->member; }

const Table& unet_keys() {
  constexpr Range kWidth = {1, 65536}, kAny = {-1e6, 1e6};
  static const Table table = {
      {.path = "sample_size",
       .slot = UNET_FIELD(sample_size),
       .help = "Height and width of the images, one number or [height, width].",
       .example = "[32, 32]",
       .range = kWidth,
       .absent = "the data's",
       .nullable = true},
      {.path = "in_channels",
       .slot = UNET_FIELD(in_channels),
       .help = "Channels of the images.",
       .example = "3",
       .range = kWidth},
      {.path = "out_channels",
       .slot = UNET_FIELD(out_channels),
       .help = "Channels of the prediction: as in_channels.",
       .example = "3",
       .range = kWidth},
      {.path = "center_input_sample",
       .slot = UNET_FIELD(center_input_sample),
       .help = "The input x is first made 2x - 1.",
       .example = "false"},
      {.path = "time_embedding_type",
       .slot = UNET_FIELD(time_embedding_type),
       .help = "How a timestep becomes a vector.",
       .example = "positional",
       .choices = {"positional"}},
      {.path = "time_embedding_dim",
       .slot = UNET_FIELD(time_embedding_dim),
       .help = "Width of the time embedding.",
       .example = "512",
       .range = kWidth,
       .absent = "4 × block_out_channels[0]",
       .nullable = true},
      {.path = "freq_shift",
       .slot = UNET_FIELD(freq_shift),
       .help = "Of the embedding's frequencies: exp(-ln(10000) i / (half - freq_shift)).",
       .example = "0",
       .range = kAny},
      {.path = "flip_sin_to_cos",
       .slot = UNET_FIELD(flip_sin_to_cos),
       .help = "Cosines before sines.",
       .example = "true"},
      {.path = "down_block_types",
       .slot = UNET_FIELD(down_block_types),
       .help = "A block for each level, from the full size down.",
       .example = "[DownBlock2D, AttnDownBlock2D]",
       .choices = {"DownBlock2D", "AttnDownBlock2D"}},
      {.path = "mid_block_type",
       .slot = UNET_FIELD(mid_block_type),
       .help = "The block at the lowest level; null: none.",
       .example = "UNetMidBlock2D",
       .choices = {"UNetMidBlock2D"},
       .nullable = true},
      {.path = "up_block_types",
       .slot = UNET_FIELD(up_block_types),
       .help = "A block for each level, from the smallest size up.",
       .example = "[AttnUpBlock2D, UpBlock2D]",
       .choices = {"UpBlock2D", "AttnUpBlock2D"}},
      {.path = "block_out_channels",
       .slot = UNET_FIELD(block_out_channels),
       .help = "Channels of each level.",
       .example = "[128, 256]",
       .range = kWidth},
      {.path = "layers_per_block",
       .slot = UNET_FIELD(layers_per_block),
       .help = "Resnets of a down block; an up block has one more.",
       .example = "2",
       .range = {1, 64}},
      {.path = "mid_block_scale_factor",
       .slot = UNET_FIELD(mid_block_scale_factor),
       .help = "The mid block's residual sums are divided by it.",
       .example = "1",
       .range = {0, 1e6, true, false}},
      {.path = "downsample_padding",
       .slot = UNET_FIELD(downsample_padding),
       .help = "1: on all sides; 0: one row below and one column to the right.",
       .example = "1",
       .range = {0, 1}},
      {.path = "downsample_type",
       .slot = UNET_FIELD(downsample_type),
       .help = "How AttnDownBlock2D halves the size.",
       .example = "conv",
       .choices = {"conv", "resnet"}},
      {.path = "upsample_type",
       .slot = UNET_FIELD(upsample_type),
       .help = "How AttnUpBlock2D doubles the size.",
       .example = "conv",
       .choices = {"conv", "resnet"}},
      {.path = "dropout",
       .slot = UNET_FIELD(dropout),
       .help = "Of each resnet.",
       .example = "0.1",
       .range = {0, 1, false, true}},
      {.path = "act_fn",
       .slot = UNET_FIELD(act_fn),
       .help = "Activation of the resnets; swish is silu.",
       .example = "silu",
       .choices = {"silu", "swish", "relu", "gelu"}},
      {.path = "attention_head_dim",
       .slot = UNET_FIELD(attention_head_dim),
       .help =
           "Width of an attention head; null: one head of all channels, as google/ddpm-cifar10-32 has it.",
       .example = "8",
       .range = kWidth,
       .nullable = true},
      {.path = "norm_num_groups",
       .slot = UNET_FIELD(norm_num_groups),
       .help = "Groups of the group norms.",
       .example = "32",
       .range = kWidth},
      {.path = "attn_norm_num_groups",
       .slot = UNET_FIELD(attn_norm_num_groups),
       .help = "Groups of the norm before the mid block's attention.",
       .example = "32",
       .range = kWidth,
       .absent = "norm_num_groups; with scale_shift no norm",
       .nullable = true},
      {.path = "norm_eps",
       .slot = UNET_FIELD(norm_eps),
       .help = "Added to the variance in the group norms.",
       .example = "1e-6",
       .range = {0, 1, true, false}},
      {.path = "resnet_time_scale_shift",
       .slot = UNET_FIELD(resnet_time_scale_shift),
       .help = "What a resnet does with the time: adds to its channels, or scales and shifts them after the "
               "norm.",
       .example = "default",
       .choices = {"default", "scale_shift"}},
      {.path = "add_attention",
       .slot = UNET_FIELD(add_attention),
       .help = "Attention in the mid block.",
       .example = "true"},
      {.path = "class_embed_type",
       .slot = UNET_FIELD(class_embed_type),
       .help = "timestep: class numbers are embedded as timesteps are. Not together with num_class_embeds.",
       .example = "timestep",
       .absent = "a table, where num_class_embeds is given",
       .nullable = true},
      {.path = "num_class_embeds",
       .slot = UNET_FIELD(num_class_embeds),
       .help = "Rows of the table of class embeddings. With objective.label_dropout one more than there are "
               "classes: the last says that the class is hidden.",
       .example = "11",
       .range = {1, 1 << 24},
       .absent = "no table",
       .nullable = true},
  };
  return table;
}

}  // namespace lockstep::job

namespace lockstep {

UNet2DConfig read_unet_config(const std::string& path) {
  if (!is_file(path))
    throw Error(Exit::no_input, "E_UNET_NONE", "no UNet configuration here").at("file", path);
  const std::string text = read_text_file(path, job::kMaxJobBytes);
  if (const auto json = nlohmann::json::parse(text, nullptr, false); !json.is_object())
    throw Error(Exit::data, "E_UNET_JSON", "is no JSON object").at("file", path);
  job::Node root = job::parse_yaml(text, path, true);  // JSON is YAML
  // What diffusers notes of itself, and the size of a table that positional embeddings do not have.
  std::erase_if(root.children,
                [](const job::Node& n) { return n.key[0] == '_' || n.key == "num_train_timesteps"; });
  UNet2DConfig config;
  job::Reader(parent_folder(absolute_path(path))).read(job::unet_keys(), root, &config, "");
  check(config);
  return config;
}

}  // namespace lockstep
