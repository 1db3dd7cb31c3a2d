// SPDX-License-Identifier: Apache-2.0
// Keys of inputs.training, inputs.validation and inputs.test.
#include "launch/job/keys.h"

namespace lockstep::job {

#define FIELD(T, member) [](void* object) -> Slot { return &static_cast<T*>(object)->member; }

namespace {

constexpr Range kSide = {1, 65500};  // the decoders' limit

}  // namespace

const Table& dataset_keys() {
  static const When folder = {"dataset", {"image_folder"}};
  static const Table table = {
      {.path = "dataset",
       .slot = FIELD(DatasetConfig, dataset),
       .help = "What lies at path.",
       .example = "mnist",
       .choices = {"mnist", "fashion_mnist", "cifar10", "idx", "image_folder", "captioned_digits"},
       .required = true},
      {.path = "path",
       .slot = FIELD(DatasetConfig, path),
       .help = "Its folder (for idx: the images file; for captioned_digits: the folder of mnist), relative "
               "to the job "
               "file's folder.",
       .example = "data/mnist",
       .text = Text::path,
       .required = true,
       .change = Change::by_content},
      {.path = "limit",
       .slot = FIELD(DatasetConfig, limit),
       .help = "Only the first so many samples, in the data set's own order, which may be by class, as an "
               "image_folder's is; classes that are left without samples are warned of. 0: all.",
       .example = "1000",
       .range = {0, 1e12}},
      {.path = "normalize.mean",
       .slot = FIELD(DatasetConfig, mean),
       .help = "Subtracted from the pixels (0 to 1): one number, or one per channel.",
       .example = "0.1307",
       .range = {-1e6, 1e6},
       .absent = "as for training; there 0"},
      {.path = "normalize.std",
       .slot = FIELD(DatasetConfig, std),
       .help = "The pixels are then divided by this: one number, or one per channel.",
       .example = "0.3081",
       .range = {0, 1e6, true, false},
       .absent = "as for training; there 1"},
      {.path = "resize",
       .slot = FIELD(DatasetConfig, fit.resize),
       .help = "Pictures are scaled to this size (antialiased bilinear), or, where one number is given, so "
               "that their shorter side has it.",
       .example = "72",
       .range = kSide,
       .absent = "as for training; there not",
       .when = folder},
      {.path = "crop",
       .slot = FIELD(DatasetConfig, fit.crop),
       .help = "The middle of so many pixels is then cut out; one number gives both sides.",
       .example = "64",
       .range = kSide,
       .absent = "as for training; there not",
       .when = folder},
      {.path = "max_pixels",
       .slot = FIELD(DatasetConfig, max_pixels),
       .help = "A picture of more pixels (height x width) is refused before memory is taken for it.",
       .example = "250000000",
       .range = {1, 1e9},
       .when = folder,
       .change = Change::by_content},
      {.path = "on_bad_image",
       .slot = FIELD(DatasetConfig, on_bad_image),
       .help = "A damaged image, or one with transparent pixels, stops the job (exit code 65), or is left "
               "out, counted and named in the log.",
       .example = "skip",
       .choices = {"stop", "skip"},
       .when = folder,
       .change = Change::by_content},
      {.path = "captions.column",
       .slot = FIELD(DatasetConfig, captions.column),
       .help = "Pictures have captions: in this column of metadata.jsonl in their folder, beside file_name, "
               "a text "
               "or a list of texts; or, where there is no such file, in x.txt for x.png.",
       .example = "text",
       .absent = "as for training; there none",
       .when = folder},
      {.path = "captions.template",
       .slot = FIELD(DatasetConfig, captions.pattern),
       .help = "Instead, captions made of the names of classes, each of which takes the place of {}.",
       .example = "\"a photo of a {}\"",
       .absent = "as for training; there none"},
  };
  return table;
}

const Table& augment_keys() {
  static const Table table = {
      // First, beside the captions' other keys: a resolved job writes one map of neighbours.
      {.path = "captions.dropout",
       .slot = FIELD(DatasetConfig, captions.dropout),
       .help = "The share of samples that are shown with an empty caption, other ones in each epoch. "
               "Guidance needs "
               "some.",
       .example = "0.1",
       .range = {0, 1}},
      {.path = "augment.flip",
       .slot = FIELD(DatasetConfig, augment.flip),
       .help = "Mirror every second image left to right, another one at each step.",
       .example = "true"},
      {.path = "augment.crop_padding",
       .slot = FIELD(DatasetConfig, augment.crop_padding),
       .help = "Pad images by so many black pixels on each side and cut a random window of their size out; "
               "0: off.",
       .example = "4",
       .range = {0, 1024}},
      {.path = "augment.random_crop",
       .slot = FIELD(DatasetConfig, augment.random_crop),
       .help = "Cut a random window of so many pixels out, another one at each step; one number gives both "
               "sides. The model's images have this size: validation, test and predict see the middle.",
       .example = "28",
       .range = kSide,
       .absent = "the images' size"},
      {.path = "cache",
       .slot = FIELD(DatasetConfig, cache),
       .help = "latents: what frozen networks make of pictures and captions is computed once, before the "
               "first step, "
               "and kept in ~/.cache/lockstep. Of a model with a VAE; not with augment.",
       .example = "latents",
       .choices = {"latents"},
       .absent = "it is computed in each step"},
  };
  return table;
}

const Table& training_keys() {
  static const Table table = [] {
    Table all = dataset_keys();
    all.insert(all.end(), augment_keys().begin(), augment_keys().end());
    return all;
  }();
  return table;
}

}  // namespace lockstep::job
