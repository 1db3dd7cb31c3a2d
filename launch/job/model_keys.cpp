// SPDX-License-Identifier: Apache-2.0
// `model`: which network, or networks, and what they start from.
#include "launch/job/keys.h"
#include "models/model.h"
#include "models/resnet.h"

namespace lockstep::job {

#define JOB_FIELD(member) [](void* object) -> Slot { return &static_cast<Job*>(object)->member; }

Table model_keys() {
  return {
      {.path = "model.name",
       .slot = JOB_FIELD(model.name),
       .help = "A built-in net. Either this or layers.",
       .example = "mnist_convnet",
       .choices = builtin_models(),
       .absent = "layers"},
      {.path = "model.stem",
       .slot = JOB_FIELD(model.stem),
       .help = "How a resnet begins: imagenet, a 7x7 convolution and max pooling that leave a quarter of "
               "each side; cifar, "
               "a 3x3 convolution for images of some 32x32.",
       .example = "cifar",
       .choices = {"imagenet", "cifar"},
       .when = {"model.name", resnet_models()}},
      {.path = "model.layers",
       .slot = JOB_FIELD(model.layers),
       .help = "A net of one's own: a list of layers, each a word or {word: {keys}}. Either this or name.",
       .example = "[{conv2d: {out_channels: 8, kernel: 3}}, relu, flatten, {linear: {out_features: 10}}]",
       .absent = "name"},
      {.path = "model.config",
       .slot = [](void* object) -> Slot {
         return KeyMap{&unet_keys, &static_cast<Job*>(object)->model.unet};
       },
       .help = "Configuration of the UNet, under the names that diffusers' UNet2DModel has.",
       .example = "{block_out_channels: [32, 64], down_block_types: [DownBlock2D, AttnDownBlock2D], "
                  "up_block_types: [AttnUpBlock2D, UpBlock2D]}",
       .absent = "that of the diffusers folder init_from; else diffusers' defaults",
       .when = {"model.name", {"unet2d"}}},
      {.path = "model.unet",
       .slot = [](void* object) -> Slot {
         return KeyMap{&unet_condition_keys, &static_cast<Job*>(object)->model.text_to_image.unet};
       },
       .help = "Configuration of the UNet that reads text, under the names that diffusers' "
               "UNet2DConditionModel has.",
       .example = "{in_channels: 3, out_channels: 3, block_out_channels: [32, 64], down_block_types: "
                  "[DownBlock2D, CrossAttnDownBlock2D], up_block_types: [CrossAttnUpBlock2D, UpBlock2D], "
                  "cross_attention_dim: 64}",
       .absent = "that of the folder init_from; else diffusers' defaults",
       .when = {"model.name", {kTextToImage}}},
      {.path = "model.text_encoder",
       .slot = [](void* object) -> Slot {
         return KeyMap{&clip_text_keys, &static_cast<Job*>(object)->model.text_to_image.text_encoder};
       },
       .help = "Configuration of the text encoder, under the names that transformers' CLIPTextModel has.",
       .example = "{vocab_size: 681, hidden_size: 64, intermediate_size: 256, num_hidden_layers: 2, "
                  "num_attention_heads: 4, max_position_embeddings: 24}",
       .absent = "that of the folder init_from; else transformers' defaults",
       .when = {"model.name", {kTextToImage}}},
      {.path = "model.vae",
       .slot = JOB_FIELD(model.text_to_image.vae),
       .help = "Configuration of the VAE, under the names that diffusers' AutoencoderKL has: the UNet draws "
               "latents, "
               "and learns from what its encoder makes of images. It is never trained here; its weights are "
               "those "
               "of init_from.",
       .example = "{block_out_channels: [128, 256, 512, 512], layers_per_block: 2, down_block_types: "
                  "[DownEncoderBlock2D, DownEncoderBlock2D, DownEncoderBlock2D, DownEncoderBlock2D], "
                  "up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D, UpDecoderBlock2D, UpDecoderBlock2D]}",
       .absent = "that of the folder init_from; else none: the UNet draws pixels",
       .when = {"model.name", {kTextToImage}}},
      {.path = "model.tokenizer",
       .slot = JOB_FIELD(model.text_to_image.tokenizer),
       .help = "Folder of a CLIP tokenizer: vocab.json and merges.txt, or tokenizer.json.",
       .example = "data/clip_small",
       .text = Text::path,
       .absent = "that of the folder init_from",
       .when = {"model.name", {kTextToImage}},
       .change = Change::by_content},
      {.path = "model.init_from",
       .slot = JOB_FIELD(model.init_from),
       .help =
           "Weights to start from: a safetensors file, a checkpoint, a run folder, or a diffusers folder.",
       .example = "pretrained.safetensors",
       .text = Text::path,
       .absent = "PyTorch's initial distributions",
       .change = Change::by_content},
      {.path = "trained",
       .slot = JOB_FIELD(hyperparameters.trained),
       .help = "The networks that are trained. The others are frozen: they keep their weights, and have no "
               "gradients, no optimizer state and no moving average.",
       .example = "[unet]",
       .choices = {"text_encoder", "unet"},
       .absent = "both",
       .when = {"model.name", {kTextToImage}}},
  };
}

}  // namespace lockstep::job
